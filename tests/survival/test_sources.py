"""What the sources may not contain, read off their syntax: pickle, code from elsewhere, and unasked network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pix2pix_zero_core.integrations.folders import LOCAL, MODEL
from tests.survival.clear import ROOT

SHIPPED = ("__init__.py", "nodes", "pix2pix_zero_core", "pix2pix_zero_cli", "tiny_zoo")
"""What runs at a user's; the rest of the repository is for developers."""

RUN_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path", "runpy.run_module"}
PICKLE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
NETWORK = {"socket", "ssl", "http", "urllib", "requests", "aiohttp", "httpx", "huggingface_hub", "ftplib", "smtplib"}
CONNECTS = {
    "pix2pix_zero_core/integrations/download.py",
    "pix2pix_zero_cli/cluster.py",
    "pix2pix_zero_cli/comfyui.py",
    "nodes/help.py",
}
"""The files that may: to fetch what somebody asked for, to reach the servers that somebody named, and to answer in
ComfyUI's own with a help page."""


LOOKS_UP = {"pix2pix_zero_core/integrations/diffusers.py": {"huggingface_hub"}}
"""A file that looks into the Hub's cache on this machine; `offence_of` sees that it asks for nothing else."""


def sources(*parts: str) -> list[Path]:
    """Every Python file of some parts of the repository."""
    return [file for part in parts for file in sorted((ROOT / part).rglob("*.py")) or [ROOT / part]]


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def offences(tree: ast.AST, file: str) -> list[str]:
    """What a shipped file does that it may not."""
    found = [f"imports {name}" for name in sorted(imported(tree) & (PICKLE | {"subprocess", "ctypes"}))]
    if file not in CONNECTS:
        found += [f"imports {name}" for name in sorted(imported(tree) & NETWORK - LOOKS_UP.get(file, set()))]
    return found + [offence for name, call in calls(tree) if (offence := offence_of(name, call))]


def offence_of(name: str, call: ast.Call) -> str | None:
    settings = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    shared = {ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None} & {"LOCAL", "MODEL"}
    nothing = bool(call.args) and ast.unparse(call.args[0]) == "None"  # weights from memory
    own = ("'", "f'.")  # a name that is written out, or a module of the same package
    if name.endswith("import_module") and not (call.args and ast.unparse(call.args[0]).startswith(own)):
        return "imports any module"
    if name in RUN_CODE:
        return f"calls {name}"
    if name.endswith("torch.load") and settings.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name.endswith("np.load") and settings.get("allow_pickle", "False") != "False":
        return "numpy.load with pickles"
    if (
        name.rpartition(".")[2] in {"snapshot_download", "hf_hub_download"}
        and settings.get("local_files_only") != "True"
    ):
        return f"{name} that may download"
    if name.endswith(".from_pretrained") and not shared and not nothing and settings.get("local_files_only") != "True":
        return f"{name} that may download"
    if settings.get("trust_remote_code", "False") != "False":
        return f"{name} with code of the model's"
    return None


def test_the_shipped_sources_run_nothing_that_comes_from_a_file_and_connect_only_when_asked():
    found = {
        file: offences(ast.parse((ROOT / file).read_text(encoding="utf-8")), file)
        for file in (path.relative_to(ROOT).as_posix() for path in sources(*SHIPPED))
    }
    assert {file: what for file, what in found.items() if what} == {}


def test_nowhere_are_weights_read_as_pickles():
    """Developers' scripts included."""
    everywhere = sources(*SHIPPED, "authoring", "benchmarks", "run.py", "launcher")
    found = [
        (str(file.relative_to(ROOT)), name)
        for file in everywhere
        for name, call in calls(ast.parse(file.read_text(encoding="utf-8")))
        if name.endswith("torch.load") and offence_of(name, call)
    ]
    assert found == [] and len(everywhere) > 50


def test_the_arguments_of_shared_loaders_forbid_network_and_code():
    assert LOCAL.items() <= MODEL.items()
    assert LOCAL == {"local_files_only": True, "trust_remote_code": False}
    assert MODEL["attn_implementation"] == "eager"


@pytest.mark.parametrize(
    ("source", "offence"),
    [
        ("import pickle", "imports pickle"),
        ("hub.snapshot_download(name)", "hub.snapshot_download that may download"),
        ("from urllib import request", "imports urllib"),
        ("def f():\n    import subprocess", "imports subprocess"),
        ("torch.load(path)", "torch.load without weights_only=True"),
        ("torch.load(path, weights_only=False)", "torch.load without weights_only=True"),
        ("np.load(path, allow_pickle=True)", "numpy.load with pickles"),
        ("AutoTokenizer.from_pretrained(folder)", "AutoTokenizer.from_pretrained that may download"),
        ("f(x, trust_remote_code=True)", "f with code of the model's"),
        ("eval(text)", "calls eval"),
        ("importlib.import_module(name)", "imports any module"),
    ],
)
def test_each_offence_is_seen(source: str, offence: str):
    assert offences(ast.parse(source), "x.py") == [offence]
