"""What the README shows as Python runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def examples() -> list[str]:
    """The blocks of Python in the README."""
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def example(mark: str) -> str:
    (found,) = (text for text in examples() if mark in text)
    return found


def run(source: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(source, str(README), "exec"), names)
    return names


def test_the_method_by_itself(capsys: pytest.CaptureFixture[str]):
    names = run(example("def denoise"))
    assert re.fullmatch(r"torch\.Size\(\[1, 4, 16, 16\]\) at a distance of [\d.]+\n", capsys.readouterr().out)
    assert float(names["result"].loss.max()) > 0, "guidance had something to do"


def test_a_pipeline_of_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tiny Zoo is under the name of Stable Diffusion, which cannot be had here."""
    from PIL import Image

    from tiny_zoo.pipeline import load_pipeline

    monkeypatch.chdir(tmp_path)
    load_pipeline().save_pretrained("stable-diffusion-v1-5")
    Image.open(README.parent / "web" / "examples" / "cat.png").convert("RGB").resize((64, 64)).save("cat.png")
    run(example("PipelineEditor"))
    with Image.open("dog.png") as edited:
        assert edited.size == (64, 64) and edited.tobytes() != Image.open("cat.png").tobytes()


def test_there_is_no_other_example():
    assert len(examples()) == 2
