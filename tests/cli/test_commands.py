"""The command line on Tiny Zoo: every command, resuming, failures, exit statuses, and what is said of bad options."""

from __future__ import annotations

import argparse
import errno
import http.server
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pix2pix_zero_cli import comfyui, edit
from pix2pix_zero_cli.arguments import UsageError
from pix2pix_zero_cli.comfyui import Job, Server, spread
from pix2pix_zero_cli.main import COMMANDS, main
from pix2pix_zero_cli.model import TINY_BLIP, DirectionOptions, ModelOptions, find_device
from pix2pix_zero_cli.pictures import find_pictures, fit, note_on, read_picture, write, write_picture
from pix2pix_zero_core import EditDirection, EditSettings, NoiseRegularizer, load_direction
from pix2pix_zero_core.integrations.captioner import Captioner

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "web" / "examples"
QUICK = ["--steps", "2", "--caption", "a cat"]
EDIT = ["--edit", "cat2dog", *QUICK]


@pytest.fixture(scope="module", autouse=True)
def made_once():
    """The model and its directions are made once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in ((ModelOptions, "load"), (DirectionOptions, "build")):
            patch.setattr(kind, name, remembered(getattr(kind, name)))
        yield


def remembered(make: Callable[..., Any]) -> Callable[..., Any]:
    made: dict[str, Any] = {}

    def recall(options: Any, *rest: Any) -> Any:
        if repr(options) not in made:
            made[repr(options)] = make(options, *rest)
        return made[repr(options)]

    return recall


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("cat", "glasses"):
        shutil.copy(EXAMPLES / f"{name}.png", folder)
    return folder


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What a command printed with --json."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def summary(**counts: int) -> dict[str, int]:
    """The last line of a command with --json."""
    return {"done": 0, "skipped": 0, "failed": 0, "unreadable": 0, "left_out": 0} | counts


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command says on stderr before it exits with status 2, having printed nothing."""
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    assert exit.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return " ".join(said.err.split())


# ------------------------------------------------------------------------------------------------------------ edit


def test_a_folder_is_edited_and_a_second_call_skips_what_is_finished(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out"
    command = ["edit", str(pictures), *EDIT, "--output", str(output), "--json"]
    assert main(command) == 0
    *done, last = rows(capsys)
    assert last == summary(done=2)
    assert {Path(row["picture"]).name for row in done} == {"cat.png", "glasses.png"}
    assert all(row["status"] == "done" and row["caption"] == "a cat" and row["seconds"] > 0 for row in done)
    first = contents(output)
    assert set(first) == {"cat_cat2dog_g0.2_s1.25.png", "glasses_cat2dog_g0.2_s1.25.png"}
    with Image.open(output / "cat_cat2dog_g0.2_s1.25.png") as edited:
        assert edited.size == (128, 128)
        assert edited.info["caption"] == "a cat"

    (output / "cat_cat2dog_g0.2_s1.25.png").unlink()
    assert main(command) == 0
    assert rows(capsys)[-1] == summary(done=1, skipped=1)
    assert contents(output) == first


def test_what_cannot_be_read_is_recorded_and_counted_and_the_rest_goes_on(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "broken.png").write_bytes((EXAMPLES / "dog.png").read_bytes()[:500])
    output = tmp_path / "out"
    command = ["edit", str(pictures), *EDIT, "--output", str(output)]
    assert main(command) == 3
    said = capsys.readouterr().out
    assert "2 done, 0 skipped, 0 failed, 1 unreadable, 1 left out as no picture; see " in said
    assert f"{pictures / 'broken.png'}: unreadable: the picture cannot be read (" in said
    (error,) = map(json.loads, (output / "errors.jsonl").read_text().splitlines())
    assert error["picture"] == str(pictures / "broken.png")
    assert error["status"] == "unreadable"
    assert "Error" in error["error"]
    assert len(list(output.glob("*.png"))) == 2

    shutil.copy(EXAMPLES / "dog.png", pictures / "broken.png")
    assert main(command) == 0
    assert not (output / "errors.jsonl").exists()
    assert len(list(output.glob("*.png"))) == 3


def test_a_picture_that_fails_is_recorded_and_the_rest_goes_on(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr("pix2pix_zero_cli.edit.source_warning", fail)
    assert main(["edit", str(pictures), *EDIT, "--output", str(tmp_path), "--json"]) == 3
    *failed, last = rows(capsys)
    assert last == summary(failed=2)
    assert [row["error"] for row in failed] == 2 * ["ValueError: no such luck"]


def test_folders_in_folders_are_edited_into_folders_of_the_same_names(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for folder in ("deep/er", ".thumbnails", "out"):
        (pictures / folder).mkdir(parents=True)
        shutil.copy(EXAMPLES / "cat.png", pictures / folder)
    (pictures / "loop").symlink_to(pictures)
    output = pictures / "out"
    command = ["edit", str(pictures), *EDIT, "--output", str(output), "--recursive", "--json"]
    assert main(command) == 0
    assert rows(capsys)[-1] == summary(done=3)
    made = {path.relative_to(output).as_posix() for path in output.rglob("*_cat2dog_g0.2_s1.25.png")}
    assert made == {f"{name}_cat2dog_g0.2_s1.25.png" for name in ("cat", "glasses", "deep/er/cat")}
    assert main(command) == 0
    assert rows(capsys)[-1] == summary(skipped=3), "results are not taken for pictures"

    captions, noises = tmp_path / "captions", tmp_path / "noises"
    assert main(["caption", str(pictures), "--recursive", "--output", str(captions)]) == 0
    assert (captions / "deep" / "er" / "cat.txt").is_file() and (captions / "cat.txt").is_file()
    assert main(["invert", str(pictures / "deep"), *QUICK, "--recursive", "--output", str(noises)]) == 0
    assert {path.name for path in (noises / "er").iterdir()} == {"cat_inversion.safetensors", "cat_reconstruction.png"}
    capsys.readouterr()
    assert "--recursive also searches the folders in it" in refusal(capsys, "edit", pictures / "deep", *EDIT)


SETTINGS = [
    ["--cfg-start", "0"],
    ["--region", "0"],
    ["--negative-from", "inversion", "--noise-from", "inversion"],
    ["--negative-from", "caption"],
    ["--negative", "snow"],
]


def test_every_setting_of_the_nodes_changes_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What they do is compared with the nodes in tests/comfy."""
    made = set[bytes]()
    for number, settings in enumerate([[], *SETTINGS]):
        output = tmp_path / str(number)
        assert main(["edit", str(EXAMPLES / "cat.png"), *EDIT, *settings, "--output", str(output)]) == 0
        with Image.open(output / "cat_cat2dog_g0.2_s1.25.png") as edited:
            made.add(edited.tobytes())
    assert len(made) == 1 + len(SETTINGS)
    capsys.readouterr()
    assert "made with other settings" in refusal(
        capsys, "edit", EXAMPLES / "cat.png", *EDIT, *SETTINGS[0], "--output", tmp_path / "0"
    )


def test_the_defaults_are_those_of_the_settings():
    parser = argparse.ArgumentParser()
    edit.add_arguments(parser)
    assert edit.edit_settings(parser.parse_args(["cat.png", "--edit", "cat2dog"])) == EditSettings()


def test_every_option_comes_where_it_belongs():
    """Each with a value that is not the usual one."""
    parser = argparse.ArgumentParser()
    edit.add_arguments(parser)
    given = "--guidance 3 --guidance-unit paper --guidance-start 0.1 --guidance-end 0.9 --cfg 4 --cfg-start 0.3"
    given += " --noise-from inversion --negative snow --region 0.1"
    given += " --steps 9 --regularization 2 --kl 3 --fixed-point 4 --dtype float16 --device cpu --threads 1"
    arguments = parser.parse_args(["cat.png", "--edit", "cat2dog", *given.split()])
    assert edit.edit_settings(arguments) == EditSettings(
        steps=9,
        regularizer=NoiseRegularizer(2.0, 3.0),
        fixed_point=4,
        cfg=4.0,
        guidance=replace(EditSettings().guidance, strength=3.0, unit="paper", start=0.1, end=0.9),
        negative="snow",
        cfg_start=0.3,
        region=0.1,
        noise_from="inversion",
    )
    model = ModelOptions.of(arguments, captions=False)
    assert (model.dtype, model.device, model.threads) == ("float16", "cpu", 1)


@pytest.mark.parametrize("command", ["edit", "direction", "judge"])
def test_the_edits_are_listed_whatever_else_is_asked_for(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main([command, "--list-edits"])
    said = capsys.readouterr().out.splitlines()
    assert exit.value.code == 0
    assert said.count("  cat2dog: cat -> dog") == 2 and said[0] == "Tiny Zoo:" and "Stable Diffusion:" in said


def test_an_error_is_a_line_without_the_usage(capsys: pytest.CaptureFixture[str]):
    for arguments in (["edit"], ["edit", "x.png", "--edit", "cat2dog", "--steps", "0"], ["fly"], ["edit", "x", *EDIT]):
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        said = capsys.readouterr().err.splitlines()
        assert exit.value.code == 2
        assert len(said) == 2 and said[0].startswith("pix2pix-zero") and said[1].endswith("--help lists the options")


def test_commands_that_keep_nothing_are_not_said_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelOptions, "load", interrupted)
    assert main(["bench"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "pix2pix_zero_cli", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def heed_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell ignores in what it starts in the background

    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def test_nothing_but_our_lines_is_printed(tmp_path: Path):
    process = start("edit", EXAMPLES / "cat.png", "--edit", "cat2dog", "--steps", "2", "--output", tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "1 done, 0 skipped, 0 failed, 0 unreadable"


INTERRUPTED = (130, -signal.SIGINT)
"""Exit statuses, the same to a shell: CPython ends by the signal where an extension swallowed it during its import."""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot interrupt one process alone")
@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_ctrl_c_before_the_work_ends_with_one_line(tmp_path: Path, seconds: float):
    process = start("edit", EXAMPLES / "cat.png", *EDIT, "--steps", "999", "--output", tmp_path)
    time.sleep(seconds)  # Python starts; torch is imported
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode in INTERRUPTED
    assert (out, err) == ("", "interrupted; the same command goes on from here\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot interrupt one process alone")
def test_ctrl_c_at_work_ends_with_one_line_and_leaves_what_is_done(pictures: Path, tmp_path: Path):
    output = tmp_path / "out"
    process = start("edit", pictures, *EDIT, "--steps", "50", "--output", output)
    assert process.stdout is not None
    done = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode in INTERRUPTED
    assert "cat.png: " in done and (out, err) == ("", "interrupted; the same command goes on from here\n")
    assert [path.name for path in output.iterdir()] == ["cat_cat2dog_g0.2_s1.25.png"]


def test_a_sweep_makes_a_picture_of_every_strength_from_one_inversion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["edit", str(EXAMPLES / "cat.png"), *EDIT, "--output", str(tmp_path), "--json"]
    sweep = ["--guidance", "0", "0.2", "0.2", "--direction-strength", "0.5", "1.25"]
    assert main([*command, *sweep]) == 0
    row, _ = rows(capsys)
    names = [f"cat_cat2dog_g{guidance}_s{strength}.png" for guidance in (0, 0.2) for strength in (0.5, 1.25)]
    assert [Path(path).name for path in row["outputs"]] == names
    made = contents(tmp_path)
    assert len(set(made.values())) == 4

    # One at a time gives the same bytes, so a sweep can be widened later.
    for path in tmp_path.iterdir():
        path.unlink()
    assert main(command) == 0
    assert contents(tmp_path) == {"cat_cat2dog_g0.2_s1.25.png": made["cat_cat2dog_g0.2_s1.25.png"]}


def test_results_of_other_settings_are_neither_skipped_nor_replaced_unless_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["edit", str(EXAMPLES / "cat.png"), *EDIT, "--output", str(tmp_path), "--json"]
    assert main(command) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    assert "made with other settings. Choose another folder, or --overwrite" in refusal(capsys, *command, "--cfg", "2")
    assert contents(tmp_path) == before
    assert main([*command, "--cfg", "2", "--overwrite"]) == 0
    assert contents(tmp_path) != before


@pytest.mark.parametrize("command", [["edit", *EDIT], ["invert", *QUICK]], ids=["edit", "invert"])
def test_results_of_another_picture_of_the_same_name_are_neither_skipped_nor_replaced_unless_asked(
    command: list[str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    name, *options = command
    call = [name, str(pictures / "cat.png"), *options, "--size", "64", "--output", str(tmp_path / "out"), "--json"]
    assert main(call) == 0
    before = contents(tmp_path / "out")
    shutil.copy(pictures / "glasses.png", pictures / "cat.png")
    capsys.readouterr()
    said = refusal(capsys, *call)
    assert "was made of another picture. Choose another folder, or --overwrite" in said
    assert contents(tmp_path / "out") == before
    assert main([*call, "--overwrite"]) == 0
    assert rows(capsys)[-1] == summary(done=1) and contents(tmp_path / "out") != before
    assert main(call) == 0
    assert rows(capsys)[-1] == summary(skipped=1)


def test_without_a_caption_blip_says_what_the_picture_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = str(EXAMPLES / "dog.png")
    assert main(["edit", picture, "--edit", "cat2dog", "--steps", "2", "--output", str(tmp_path), "--json"]) == 0
    edited, _ = rows(capsys)
    assert main(["caption", picture, "--json"]) == 0
    captioned, _ = rows(capsys)
    assert edited["caption"] == captioned["caption"]
    assert "dog" in captioned["caption"]
    assert "already names 'dog'" in edited["warning"]


def test_a_negative_strength_leads_from_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--edit", "cat2dog", "--direction-strength", "-1", *QUICK[:-2], "--output", str(tmp_path), "--json"]
    for picture, fits in (("dog", True), ("cat", False)):
        assert main(["edit", str(EXAMPLES / f"{picture}.png"), *options, "--caption", f"a {picture}"]) == 0
        assert ("already names 'cat', where this edit leads" in rows(capsys)[0].get("warning", "")) is not fits


@pytest.mark.parametrize("command", [["edit", "--edit", "cat2dog"], ["invert"]], ids=["edit", "invert"])
def test_results_of_another_captioner_are_others(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = Path(shutil.copytree(TINY_BLIP, tmp_path / "blip"))
    name, *more = command
    call = [name, str(EXAMPLES / "cat.png"), *more, "--steps", "2", "--size", "64", "--output", str(tmp_path / "out")]
    assert main(call) == 0
    capsys.readouterr()
    assert "made with other settings" in refusal(capsys, *call, "--blip", other)
    assert main(call) == 0 and "finished before" in capsys.readouterr().out


def test_the_device_is_one_that_is_there(monkeypatch: pytest.MonkeyPatch):
    """A torch that was built for CUDA names it on machines without a GPU, too."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert find_device("auto") == torch.device("cuda")


def test_pictures_of_a_workflow_keep_apart_whatever_their_nodes_are_called(tmp_path: Path):
    titles = {"1": "保存甲", "2": "保存乙", "3": "A b", "4": "A_b", "5": "Save: all", "6": "Save: all"}
    nodes = {node: {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": t}} for node, t in titles.items()}
    job = Job(nodes, "1", tmp_path, (), overwrite=False)
    names = [job.file_name(Path("cat.png"), node, 0, "x.png") for node in nodes]
    assert names == [
        *("cat_保存甲.png", "cat_保存乙.png", "cat_A_b_3.png", "cat_A_b_4.png"),
        *("cat_Save_all_5.png", "cat_Save_all_6.png"),
    ]


def test_what_a_workflow_made_of_another_picture_is_not_taken(tmp_path: Path):
    picture, workflow = tmp_path / "cat.png", {"1": {"class_type": "LoadImage", "inputs": {}}}
    shutil.copy(EXAMPLES / "cat.png", picture)
    job = Job(workflow, "1", tmp_path / "out", (), overwrite=False)
    outputs = {"1": {"images": [{"filename": "x.png", "type": "output"}]}}

    class Stub(Server):
        def upload(self, picture: Path) -> str:
            return "x.png"

        def queue(self, workflow: Any) -> str:
            return "1"

        def wait(self, prompt: str, stopped: threading.Event) -> Any:
            return outputs

        def request(self, *given: Any) -> bytes:
            return b"picture"

    Stub("http://127.0.0.1:1").run(job, picture, threading.Event())
    assert job.finished(picture)
    shutil.copy(EXAMPLES / "dog.png", picture)
    with pytest.raises(UsageError, match="is of another workflow or picture"):
        job.finished(picture)
    assert not replace(job, overwrite=True).finished(picture)


def test_servers_are_waited_for_in_a_way_that_ctrl_c_interrupts_on_windows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Interruptible(Queue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            assert timeout is not None
            return super().get(block, timeout)

    class Slow(Server):
        def get(self, path: str) -> Any:
            return {}

        def run(self, *given: Any) -> dict[str, Any]:
            time.sleep(0.1)
            return {}

    monkeypatch.setattr(comfyui, "Queue", Interruptible)
    monkeypatch.setattr(comfyui, "POLL", 0.02)
    job = Job({}, "1", tmp_path, (), overwrite=False)
    assert [row.status for row in spread([Slow("http://127.0.0.1:1")], job, [tmp_path], lambda: None)] == ["done"]


def test_a_server_on_this_machine_is_asked_without_the_proxy_and_others_through_it(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("urllib.request._opener", None)  # made of the environment when first used
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        Server(f"http://127.0.0.1:{server.server_port}").get("/queue")
        Server(f"http://localhost:{server.server_port}").get("/queue")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        Server("http://comfy.example").get("/queue")
        server.shutdown()
    assert asked == ["/queue", "/queue", "http://comfy.example/queue"]


def test_two_words_make_an_edit_whose_sentences_a_seed_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--from", "cat", "--to", "dog", "--kind", "animal", "--sentences", "20", *QUICK]
    command = ["edit", str(EXAMPLES / "cat.png"), *words, "--output", str(tmp_path)]
    assert main(command) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cat_cat-to-dog_g0.2_s1.25.png"]
    before = contents(tmp_path)
    capsys.readouterr()
    assert "made with other settings" in refusal(capsys, *command, "--seed", "1")
    assert main([*command, "--seed", "1", "--overwrite"]) == 0
    assert contents(tmp_path) != before


def test_an_interrupt_ends_with_its_own_status_and_leaves_no_partial_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out"
    command = ["edit", str(pictures), *EDIT, "--output", str(output), "--json"]

    def interrupted(path: Path, content: bytes) -> None:
        write(path, content)
        raise KeyboardInterrupt

    monkeypatch.setattr("pix2pix_zero_cli.pictures.write", interrupted)
    assert main(command) == 130
    assert list(contents(output)) == ["cat_cat2dog_g0.2_s1.25.png"]
    monkeypatch.undo()
    capsys.readouterr()


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*paths: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path / "folder" / "file.png", b"content")
    assert list((tmp_path / "folder").iterdir()) == []


# ------------------------------------------------------------------------------------------------- other commands


def test_captions_are_written_beside_each_other(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["caption", str(pictures), "--output", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    *captioned, _ = rows(capsys)
    for row in captioned:
        assert (tmp_path / "out" / f"{Path(row['picture']).stem}.txt").read_text() == row["caption"] + "\n"
    assert main(command) == 0
    assert rows(capsys)[-1] == summary(skipped=2)


def test_a_saved_direction_edits_as_the_named_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "mine.safetensors"
    assert main(["direction", "--edit", "cat2dog", "--output", str(path), "--json"]) == 0
    (said,) = rows(capsys)
    direction = load_direction(path)
    assert (direction.source, direction.target, direction.form) == ("cat", "dog", "aligned to words")
    assert (said["encoder"], said["form"]) == (direction.encoder, direction.form)
    mean = [
        "direction",
        "--edit",
        "cat2dog",
        "--form",
        "mean",
        "--output",
        str(tmp_path / "mean.safetensors"),
        "--json",
    ]
    assert main(mean) == 0
    assert (rows(capsys)[0]["form"], EditDirection.load(mean[-2]).form) == ("mean by position",) * 2
    assert "exists" in refusal(capsys, "direction", "--edit", "cat2dog", "--output", path)

    picture = [str(EXAMPLES / "cat.png"), *QUICK]
    assert main(["edit", *picture, "--direction", str(path), "--output", str(tmp_path / "a")]) == 0
    assert main(["edit", *picture, "--edit", "cat2dog", "--output", str(tmp_path / "b")]) == 0
    first, second = (
        np.array(Image.open(tmp_path / folder))
        for folder in ("a/cat_mine_g0.2_s1.25.png", "b/cat_cat2dog_g0.2_s1.25.png")
    )
    np.testing.assert_array_equal(first, second)


def test_an_inversion_is_saved_with_what_samples_back_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from safetensors.torch import load_file

    command = ["invert", str(EXAMPLES / "cat.png"), *QUICK, "--output", str(tmp_path), "--json"]
    assert main(command) == 0
    row, _ = rows(capsys)
    tensors = load_file(tmp_path / "cat_inversion.safetensors")
    assert tensors["noise"].shape == (1, 4, 16, 16)
    assert torch.equal(tensors["trajectory"][0], tensors["noise"])
    assert len(tensors["sigmas"]) == 3
    assert Image.open(tmp_path / "cat_reconstruction.png").size == (128, 128)
    assert row["reconstruction_db"] > 0
    assert main(command) == 0
    assert rows(capsys)[-1]["skipped"] == 1
    assert "other settings" in refusal(capsys, *command, "--kl", "0")


def test_bench_measures_every_part(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--count", "1", "--steps", "2", "--json"]) == 0
    (said,) = rows(capsys)
    assert set(said["seconds"]) == {"load", "direction", "caption", "invert", "edit"}
    assert all(value > 0 for value in said["seconds"].values())
    assert said["pictures_a_minute"] > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    assert "--json" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------- judge

UNTIL = ["edit", str(EXAMPLES / "cat.png"), "--steps", "6", "--until-it-shows", "--json"]


def test_an_edit_ends_at_the_first_strength_that_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = [*UNTIL, "--edit", "cat2dog", "--output", str(tmp_path), "--direction-strength", "0.01", "2", "3"]
    assert main(command) == 0
    row, _ = rows(capsys)
    (path,) = map(Path, row["outputs"])
    assert path.name == "cat_cat2dog_g0.2_until.png"
    assert row["strengths"] == [2.0] and row["shows"] == [True] and row["scores"][0] > 0
    assert "warning" not in row
    made = path.read_bytes()

    fixed = ["edit", str(EXAMPLES / "cat.png"), "--steps", "6", "--edit", "cat2dog", "--caption", row["caption"]]
    fixed += ["--direction-strength", "2"]
    assert main([*fixed, "--output", str(tmp_path / "fixed")]) == 0
    capsys.readouterr()
    with Image.open(path) as until, Image.open(tmp_path / "fixed" / "cat_cat2dog_g0.2_s2.png") as fixed_picture:
        assert until.tobytes() == fixed_picture.tobytes(), "the same edit as at that strength alone"

    assert main(command) == 0
    assert [row["status"] for row in rows(capsys)[:-1]] == ["skipped"]
    assert path.read_bytes() == made
    assert "was made with other settings" in refusal(capsys, *command, "--direction-strength", "1", "1.5")


def test_an_edit_that_never_shows_is_given_at_the_strongest_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = [*UNTIL, "--edit", "cat2dog", "--output", str(tmp_path), "--direction-strength", "0.01", "0.02"]
    assert main(command) == 0
    row, _ = rows(capsys)
    assert row["strengths"] == [0.02] and row["shows"] == [False]
    assert "The edit does not show: dog: no" in row["warning"]


def test_an_edit_whose_target_is_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = [*UNTIL, "--edit", "dog2cat", "--output", str(tmp_path), "--caption", "a dog"]
    assert main(command) == 0
    assert "The picture shows 'cat' already" in rows(capsys)[0]["warning"]


CAT = "a brown cat"  # as Tiny Zoo's BLIP speaks: it names the coat first


def test_pictures_are_judged_by_the_caption_in_the_file_or_by_a_given_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dog = str(EXAMPLES / "dog.png")
    assert main(["judge", dog, str(EXAMPLES / "cat.png"), "--edit", "cat2dog", "--caption", CAT, "--json"]) == 0
    yes, no, last = rows(capsys)
    assert yes["shows"] and yes["score"] > 0 and yes["words"].startswith("dog: clearly (") and "warning" not in yes
    assert not no["shows"] and no["score"] < 0 and no["warning"].startswith("The edit does not show: dog: no")
    assert last["done"] == 2

    named = ["judge", dog, "--caption", CAT]
    for way in (["--from", "cat", "--to", "dog"], ["--target", "a brown dog"]):
        assert main([*named, *way, "--json"]) == 0
        assert rows(capsys)[0]["score"] == yes["score"]
    assert main([*named, "--edit", "cat2dog", "--original", dog]) == 0
    assert "The picture shows 'dog' already" in capsys.readouterr().out

    picture = tmp_path / "edited.png"
    write_picture(read_picture(EXAMPLES / "dog.png", None)[0], picture, {"caption": CAT})
    assert main(["judge", str(picture), "--edit", "cat2dog", "--json"]) == 0
    assert rows(capsys)[0]["score"] == yes["score"]
    assert main(["judge", dog, "--edit", "cat2dog", "--json"]) == 3
    assert "give a --caption" in rows(capsys)[0]["error"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--edit", "cat2fish"], "--edit cat2fish: the edits are cat2dog"),
        (["--from", "cat"], "--from and --to: one needs the other"),
        (["--edit", "cat2dog", "--to", "dog"], "--to: belongs to --from, not to --edit"),
        (["--target", "a dog", "--to", "dog"], "--to: belongs to --from, not to --target"),
        (["--target", ""], "--target: the caption is empty"),
        (["--from", "cat", "--to", "cat"], "both are the same, there is nothing to judge"),
        (["--edit", "cat2dog", "--original", __file__], f"--original {__file__}: the picture cannot be read"),
        (["--edit", "cat2dog", "--blip", "nowhere"], "--blip nowhere: there is no such folder"),
        (["--edit", "cat2dog", "--original", "nowhere"], "--original nowhere: there is no such file"),
        ([], "one of the arguments --edit --from --target is required"),
    ],
)
def test_a_judge_that_cannot_be_asked(options: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert said in refusal(capsys, "judge", EXAMPLES / "cat.png", "--caption", "a cat", *options)


def test_strengths_that_do_not_rise_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = [*UNTIL, "--edit", "cat2dog", "--output", tmp_path, "--direction-strength", "1", "0.5"]
    assert "--direction-strength: The strengths to try are 1, 0.5; give one or more that rise from above 0" in refusal(
        capsys, *command
    )


# ----------------------------------------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "0"], "argument --steps: 0 is out of range; it must be 1 to 999"),
        (["--steps", "many"], "argument --steps: 'many' is not a whole number; it must be 1 to 999"),
        (["--guidance", "5", "-1"], "argument --guidance: -1 is out of range; it must be 0 to 1000"),
        (["--cfg", "nan"], "argument --cfg: nan is out of range; it must be 0 to 100"),
        (["--direction-strength", "11"], "argument --direction-strength: 11 is out of range; it must be -10 to 10"),
        (["--output", " "], "argument --output: ' ' is no path"),
        (["--size", "100"], "argument --size: '100' is no size; it must be a side or WIDTHxHEIGHT, each a multiple"),
        (["--edit", "cat2fish"], "--edit cat2fish: the edits of this model are cat2dog, dog2cat"),
        (["--to", "dog"], "--to: belongs to --from, not to --edit"),
        (["--kind", "animal", "--seed", "0"], "--kind, --seed: belongs to --from, not to --edit"),
        (["--guidance", "0.2", "1.5"], "--guidance 1.5: in the unit share it must be 0 to 1"),
        (["--guidance", "0.2", "0.20000001"], "two values look the same in the names of the results"),
        (["--guidance-end", "0"], "--guidance-end 0: guidance would end before its first step"),
        (["--guidance-start", "0.6"], "--guidance-start 0.6 --guidance-end 0.6: guidance would end before its"),
        (["--guidance-start", "0.7", "--guidance", "0"], "--guidance-start 0.7 --guidance-end 0.6: guidance would end"),
        (
            ["--cfg-start", "1"],
            "--cfg-start 1 --steps 25: in fresh noise nothing is edited before, and no step is left",
        ),
        (["--steps", "1"], "--cfg-start 0.2 --steps 1: in fresh noise nothing is edited before, and no step is left"),
        (
            ["--cfg-start", "0.6"],
            "--guidance-end 0.6 --steps 25: no step begins from 0.6 of them, where --guidance-start or --cfg-start is, "
            "to --guidance-end; raise that",
        ),
        (
            ["--guidance-start", "0.99", "--guidance-end", "1"],
            "--guidance-start 0.99 --guidance-end 1 --steps 25: no step begins from 0.99 of them, where "
            "--guidance-start or --cfg-start is, on; lower that or raise --steps",
        ),
        (["--negative", "quux"], "--negative quux: Tiny Zoo does not know quux"),
        (["--config", "nowhere"], "--config nowhere: belongs to a checkpoint, not to tiny_zoo"),
        (["--config", str(ROOT), "--model", str(ROOT)], "belongs to a checkpoint, not to a folder"),
        (["--config", "nowhere", "--model", __file__], "--config nowhere: no folder in diffusers' format"),
        (["--blip", "nowhere", "--caption", "a cat"], "--blip nowhere: nothing is captioned"),
        (["--fly"], "pix2pix-zero edit: unrecognized arguments: --fly"),
        (["--model", "nowhere"], "--model nowhere: there is no such folder or checkpoint; tiny_zoo is the embedded"),
        (["--model", str(ROOT)], "has no model_index.json"),
        (["--device", "abacus"], "--device abacus:"),
        (["--workers", "2"], "--workers: belongs to --ray"),
        (["--region", "1.5"], "argument --region: 1.5 is out of range; it must be 0 to 1"),
        (
            ["--negative-from", "inversion"],
            "--negative-from inversion: belongs to --noise-from inversion, not to fresh",
        ),
        (
            ["--negative-from", "caption", "--negative", "a cat"],
            "--negative: belongs to --negative-from text, not to caption",
        ),
        (["--cfg", "1", "--negative", "a cat"], "--negative: at --cfg 1 nothing moves away from it"),
        (["--blip", "nowhere"], "--blip nowhere: there is no such folder"),
    ],
)
def test_a_bad_option_is_named_with_its_range(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    caption = [] if "--blip" in options else ["--caption", "a cat"]
    command = ["edit", EXAMPLES / "cat.png", "--edit", "cat2dog", "--output", tmp_path / "out", *caption]
    assert said in refusal(capsys, *command, *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "cat"], "--from: needs --to"),
        (["--from", "", "--to", "dog"], "--from: is empty; say what the picture shows"),
        (["--from", "cat", "--to", "Cat"], "both are the same"),
        (["--from", "cat", "--to", "unicorn"], "--to unicorn: Tiny Zoo does not know unicorn; its words are"),
        (["--from", "cat", "--to", "dog", "--sentences", "0"], "argument --sentences: 0 is out of range"),
        (["--from", "cat", "--to", "犬"], "--to 犬: Tiny Zoo does not know 犬"),
        (["--from", "cat", "--to", "a cat"], "cat -> a cat: All"),
        (["--from", "cat", "--to", "a cat", "--form", "mean"], "read the same to the text encoder"),
        (["--direction", __file__, "--form", "mean"], "--form: belongs to --edit and --from, not to --direction"),
        (["--direction", "nowhere"], "--direction nowhere: there is no such file; pix2pix-zero direction makes one"),
        ([], "one of the arguments --edit --from --direction is required"),
    ],
)
def test_a_bad_edit_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert said in refusal(capsys, "edit", EXAMPLES / "cat.png", *options, *QUICK)


@pytest.mark.parametrize(
    ("output", "said"), [("/proc/dog.safetensors", "no folder that can be written"), ("", "'' is no path")]
)
def test_a_direction_that_could_not_be_written_is_not_made(
    output: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ModelOptions, "load", lambda self: pytest.fail("nothing is to be loaded"))
    assert said in refusal(capsys, "direction", "--edit", "cat2dog", "--output", output)


def test_settings_that_edit_nothing_are_told_as_by_the_nodes_once_for_all_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("first.png", "second.png"):
        Image.open(EXAMPLES / "cat.png").save(tmp_path / name)
    idle = ["--steps", "2", "--cfg", "0", "--direction-strength", "0", "--edit", "cat2dog"]
    command = ["edit", str(tmp_path), *idle, "--caption", "a cat", "--size", "64", "--output", str(tmp_path / "edited")]
    told = (
        "cfg is 0: the target text is not followed",
        "The inversion has 2 steps: edits hardly show",
        "At a direction strength of 0 the text stays",
    )
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.index("first.png") < printed.index(told[0]) < printed.index("second.png")
    assert [printed.count(text) for text in told] == [1, 1, 1]
    assert main([*command, "--json", "--overwrite", "--cfg", "0.5"]) == 0
    for row in rows(capsys)[:2]:
        assert "cfg is 0.5" in " ".join(row["remarks"]) and "warning" not in row


def test_a_direction_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "other.safetensors"
    EditDirection(torch.ones(77, 128), None, "cat", "dog", "another encoder", (1, 1)).save(path)
    said = refusal(capsys, "edit", EXAMPLES / "cat.png", "--direction", path, *QUICK, "--output", tmp_path / "out")
    assert "was made by text encoder 'another encoder'" in said


def test_pictures_that_are_not_there_or_share_a_name_are_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "PICTURE nowhere.png: there is no such file" in refusal(capsys, "edit", "nowhere.png", *EDIT)
    assert "argument PICTURE: '' is no path" in refusal(capsys, "edit", "", *EDIT)
    (tmp_path / "empty").mkdir()
    assert "there is no picture in this folder" in refusal(capsys, "edit", tmp_path / "empty", *EDIT)
    assert "is a folder of pictures that are read" in refusal(capsys, "edit", pictures, *EDIT, "--output", pictures)
    Image.open(pictures / "cat.png").save(pictures / "cat.jpg")
    assert "2 pictures would all become" in refusal(capsys, "edit", pictures, *EDIT)


def test_no_name_leads_out_of_the_output_folder(tmp_path: Path):
    words = ["--from", "a cat", "--to", "../../dog", *QUICK]
    assert main(["edit", str(EXAMPLES / "cat.png"), *words, "--output", str(tmp_path / "deep" / "out")]) == 0
    assert [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*.png")] == [("deep", "out")]


# ------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("size", [(301, 200), (200, 301), (64, 64), (128, 64)])
def test_pictures_are_cropped_in_the_middle_and_resized(size: tuple[int, int]):
    image = Image.new("RGB", size, "red")
    width, height = size
    image.paste("blue", (width // 2 - 8, height // 2 - 8, width // 2 + 8, height // 2 + 8))
    fitted = np.array(fit(image, (64, 64))).astype(int)
    assert fitted.shape == (64, 64, 3)
    mark = np.argwhere(fitted[..., 2] > 128)
    np.testing.assert_allclose(mark.mean(0), [31.5, 31.5], atol=1)


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1)])
def test_of_a_picture_narrower_than_any_crop_something_is_left(size: tuple[int, int]):
    assert np.asarray(fit(Image.new("RGB", size, "white"), (64, 64))).min() == 255


def test_pictures_are_turned_upright(tmp_path: Path):
    image = Image.new("RGB", (16, 8), "red")
    image.paste("blue", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    picture = read_picture(tmp_path / "turned.jpg", None)
    assert picture.shape == (1, 16, 8, 3)
    assert picture[0, 4, 4, 2] > 0.8 and picture[0, 12, 4, 0] > 0.8


def ramp(high: float, dtype: Any) -> np.ndarray[Any, Any]:
    """Grey values from 0 to `high`, from left to right."""
    return np.tile(np.linspace(0, high, 16), (16, 1)).astype(dtype)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey8.png", Image.fromarray(ramp(255, np.uint8))),
        ("grey16.png", Image.fromarray(ramp(65535, np.uint16))),
        ("grey32.tif", Image.fromarray(ramp(65535, np.int32))),
        ("float.tif", Image.fromarray(ramp(1, np.float32))),
        ("palette.png", Image.fromarray(ramp(255, np.uint8)).convert("P")),
        ("cmyk.jpg", Image.fromarray(ramp(255, np.uint8)).convert("RGB").convert("CMYK")),
    ],
)
def test_pictures_of_every_depth_are_read_alike(tmp_path: Path, name: str, image: Image.Image):
    image.save(tmp_path / name)
    picture = read_picture(tmp_path / name, None)
    expected = torch.linspace(0, 1, 16).view(1, 1, 16, 1).expand(1, 16, 16, 3)
    torch.testing.assert_close(picture, expected, atol=0.05 if name.endswith("jpg") else 0.005, rtol=0)
    assert note_on(tmp_path / name) is None


@pytest.mark.parametrize("values", [ramp(255, np.float32), ramp(-1, np.float32), ramp(1e6, np.int32)])
def test_values_without_a_known_range_are_refused(tmp_path: Path, values: np.ndarray[Any, Any]):
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(ValueError, match=r"values from .* to .*; floating point must be from 0 to 1.* with 8 bits"):
        read_picture(tmp_path / "odd.tif", None)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparent_parts_are_laid_over_white_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
):
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 16))
    path = tmp_path / ("cutout.tif" if mode == "PA" else "cutout.png")
    image.convert(mode).save(path) if mode != "PA" else image.save(path)
    picture = read_picture(path, None)
    assert float(picture[..., :8, :].max()) < 0.01 and float(picture[..., 8:, :].min()) > 0.99
    assert note_on(path) == f"{path.name}: its transparent parts are laid over white"
    if mode == "RGBA":
        assert main(["edit", str(path), *EDIT, "--output", str(tmp_path / "out")]) == 0
        assert "cutout.png: its transparent parts are laid over white" in capsys.readouterr().out


def test_a_picture_whose_later_frames_are_broken_is_read_and_it_is_said(tmp_path: Path):
    frames = [Image.effect_noise((64, 64), 50 + i) for i in range(3)]
    frames[0].save(tmp_path / "whole.gif", save_all=True, append_images=frames[1:])
    path = tmp_path / "cut.gif"
    for share in (0.6, 0.7, 0.8, 0.9):
        content = (tmp_path / "whole.gif").read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        read_picture(path, None)
        assert "first" in (note_on(path) or "")


def test_linked_folders_are_named_since_they_are_not_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "deep").mkdir()
    for folder in (tmp_path, tmp_path / "deep"):
        shutil.copy(EXAMPLES / "cat.png", folder)
        (folder / "linked").symlink_to(EXAMPLES)
    (tmp_path / ".hidden").symlink_to(EXAMPLES)
    assert len(find_pictures([tmp_path]).pictures) == 1
    said = capsys.readouterr().err
    assert "1 linked folder (linked) is not searched, unless named itself" in said and "1 folder (deep) is" in said
    assert len(find_pictures([tmp_path], recursive=True).pictures) == 2
    assert "2 linked folders (linked, linked) are not searched, unless named itself" in capsys.readouterr().err
    assert len(find_pictures([tmp_path / "linked"]).pictures) == len(list(EXAMPLES.glob("*.png")))


def test_pictures_that_cannot_be_looked_for_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match=f"PICTURE {'x' * 300}: (cannot be read|there is no such file)"):
        find_pictures(["x" * 300])

    def barred(folder: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", barred)
    with pytest.raises(UsageError, match=rf"PICTURE {re.escape(str(tmp_path))}: cannot be read \(Permission denied\)"):
        find_pictures([str(tmp_path)])


def test_a_damaged_result_is_one_of_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["edit", str(EXAMPLES / "cat.png"), *EDIT, "--size", "64", "--output", str(tmp_path)]
    assert main(command) == 0
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    place = content.index(b"IDAT")
    # Half of the pixels, and zeros where the others should begin: Pillow raises SyntaxError.
    half = int.from_bytes(content[place - 4 : place], "big") // 2
    path.write_bytes(content[: place - 4] + half.to_bytes(4, "big") + content[place : place + 4 + half] + bytes(99))
    capsys.readouterr()
    assert "was made with other settings" in refusal(capsys, *command)
    assert main([*command, "--overwrite"]) == 0


def test_names_that_are_no_text_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(EXAMPLES / "cat.png", picture)
    except OSError:
        pytest.skip("this file system has only names in Unicode")
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["caption", str(picture)]) == 0
    out.seek(0)
    assert "caf\\udce9.png: " in out.read()


def test_a_run_that_is_refused_leaves_the_errors_of_the_last_one(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (pictures / "broken.png").write_bytes(b"no picture")
    output = tmp_path / "out"
    command = ["edit", str(pictures), *EDIT, "--size", "64", "--output", str(output)]
    assert main(command) == 3
    failed = (output / "errors.jsonl").read_text()
    with pytest.raises(SystemExit):
        main([*command, "--device", "abacus"])
    assert (output / "errors.jsonl").read_text() == failed
    assert main(command) == 3
    assert (output / "errors.jsonl").read_text().count("\n") == 1
    (pictures / "broken.png").unlink()
    assert main(command) == 0
    assert not (output / "errors.jsonl").exists(), "nothing was left to do, and nothing failed"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)")])
@pytest.mark.parametrize("place", ["_pipeline", "from_folder"])
def test_too_little_memory_is_not_the_models_fault(
    error: Exception, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(ModelOptions if place == "_pipeline" else Captioner, place, fail)
    flag = "--model tiny_zoo" if place == "_pipeline" else f"--blip {TINY_BLIP}"
    call = ["edit", EXAMPLES / "cat.png", *EDIT] if place == "_pipeline" else ["caption", EXAMPLES / "cat.png"]
    said = refusal(capsys, *call, *(["--output", tmp_path, "--threads", "3"] if place == "_pipeline" else []))
    assert f"{flag}: too little memory ({str(error) or 'MemoryError'}). Free some, or choose another --device" in said


def test_captions_are_not_overwritten_where_none_are_written(capsys: pytest.CaptureFixture[str]):
    assert "--overwrite: belongs to --output" in refusal(capsys, "caption", EXAMPLES / "cat.png", "--overwrite")


def test_captions_that_begin_otherwise_are_neither_taken_nor_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["caption", str(EXAMPLES / "cat.png"), "--output", str(tmp_path)]
    assert main([*command, "--prefix", "a drawing of"]) == 0
    assert main([*command, "--prefix", "A  Drawing"]) == 0
    capsys.readouterr()
    assert "cat.txt does not begin with 'a sketch of'" in refusal(capsys, *command, "--prefix", "a sketch of")


def test_a_direction_does_not_go_where_a_folder_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["direction", "--edit", "cat2dog", "--output", tmp_path, "--overwrite"]
    assert "is a folder; name a file" in refusal(capsys, *command)


def test_what_a_folder_holds_beside_pictures_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image = Image.open(EXAMPLES / "cat.png")
    for name in ("cat.png", "web.jfif", "scan.tif", "moving.gif"):
        image.convert("RGB").save(tmp_path / name, "JPEG" if name == "web.jfif" else None)
    for name in ("._cat.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "link.png").symlink_to(EXAMPLES / "dog.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("deeper", "results", ".hidden"):
        (tmp_path / name).mkdir()
    found = find_pictures([str(tmp_path)], output=tmp_path / "results")
    assert found.left_out == 3
    assert [path.name for path in found.pictures] == ["cat.png", "link.png", "moving.gif", "scan.tif", "web.jfif"]
    said = capsys.readouterr().err
    assert "3 files (._cat.png, dangling.png, notes.txt) are left out" in said
    assert "1 folder (deeper) is not searched; --recursive does that" in said
    assert all(read_picture(path, (64, 64)).shape == (1, 64, 64, 3) for path in found.pictures)


@pytest.mark.parametrize("command", ["edit", "invert", "caption"])
def test_an_output_that_is_no_folder_is_found_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
):
    def load(*_: Any) -> Any:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(ModelOptions, "load", load)
    (tmp_path / "a_file").touch()
    more = {"edit": EDIT, "invert": QUICK, "caption": []}[command]
    said = refusal(capsys, command, EXAMPLES / "cat.png", *more, "--output", tmp_path / "a_file")
    assert f"--output {tmp_path / 'a_file'}: no folder that can be written" in said


def test_a_full_disk_ends_the_job_at_once(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pix2pix_zero_cli.edit.write_picture", full)
    said = refusal(capsys, "edit", pictures, *EDIT, "--output", tmp_path / "out")
    assert "--output: No space left on device, at" in said and "cat.png" in said
