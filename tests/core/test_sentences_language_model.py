"""A language model as a writer: tiny ones of random weights end to end, a scripted one for what becomes of replies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from pix2pix_zero_core.integrations import language_model
from pix2pix_zero_core.integrations.language_model import BATCH, PATIENCE, REPLY, SentenceWriter
from pix2pix_zero_core.integrations.sentences import SentenceSource

WORDS = ["a", "cat", "cats", "dog", "on", "the", "in", "sofa", "meadow", "old", "black", "sleeping", "running"]
CHAT = "{% for message in messages %}<user> {{ message['content'] }} <model>{% endfor %}"


def make_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    vocabulary = ["<pad>", "<end>", "<unknown>", "\n", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    special = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unknown>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template, **special)


def make_folder(folder: Path, kind: str, positions: int = 1024) -> Path:
    torch.manual_seed(0)
    size = len(make_tokenizer())
    if kind == "causal":
        model: Any = GPT2LMHeadModel(
            GPT2Config(vocab_size=size, n_positions=positions, n_embd=16, n_layer=1, n_head=2, eos_token_id=1)
        )
    else:
        model = T5ForConditionalGeneration(
            T5Config(
                **dict(vocab_size=size, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2),
                **dict(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0),
            )
        )
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("causal"), "causal")


@pytest.fixture(params=["causal", "seq2seq"])
def writer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SentenceSource:
    monkeypatch.setattr(language_model, "REPLY", 60)
    return SentenceWriter.from_folder(make_folder(tmp_path, request.param))


def test_even_random_weights_write_sentences_about_the_concept(writer: SentenceWriter) -> None:
    progress: list[tuple[int, int]] = []
    state = torch.random.get_rng_state()
    sentences = writer("cat", 12, on_progress=lambda done, total: progress.append((done, total)))
    assert len(set(sentences)) == 12
    assert all(re.search(r"\bcats?\b", sentence) and 3 <= len(sentence.split()) <= 30 for sentence in sentences)
    assert progress[-1] == (12, 12) and len(progress) >= 60, "after every token"
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(123)
    assert writer("cat", 12) == sentences != writer("cat", 12, seed=1)


def test_half_precision_and_inference_mode(causal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "REPLY", 60)
    with torch.inference_mode():
        writer = SentenceWriter.from_folder(causal, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in writer.model.parameters()} == {torch.bfloat16}
        assert len(writer("dog", 2)) == 2


class ScriptedTokenizer:
    """Characters as tokens; token 0 ends a reply."""

    eos_token_id = 0

    def __init__(self, chat_template: str | None) -> None:
        self.chat_template = chat_template

    def __call__(self, text: str, **settings: Any) -> Any:
        return SimpleNamespace(input_ids=torch.tensor([[ord(character) for character in text]]))

    def apply_chat_template(self, messages: list[dict[str, str]], **settings: Any) -> str:
        return f"<user>{messages[0]['content']}<model>"

    def decode(self, row: Any, skip_special_tokens: bool) -> str:
        return "".join(chr(token) for token in row.tolist() if token)


class ScriptedModel(torch.nn.Module):
    """Replies with given texts, one after the other; remembers what it was asked."""

    def __init__(self, replies: Iterator[str]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.device, self.name_or_path = torch.device("cpu"), "scripted"
        self.config = SimpleNamespace(is_encoder_decoder=False, get_text_config=lambda: SimpleNamespace())
        self.replies, self.prompts = replies, list[str]()

    def generate(self, input_ids: torch.Tensor, num_return_sequences: int, **settings: Any) -> torch.Tensor:
        self.prompts.append("".join(map(chr, input_ids[0].tolist())))
        texts = [next(self.replies, "\0") for _ in range(num_return_sequences)]
        width = max(map(len, texts))
        rows = [[ord(character) for character in text.ljust(width, "\0")] for text in texts]
        return torch.cat([input_ids.repeat(len(rows), 1), torch.tensor(rows)], dim=1)


def scripted(*replies: str, chat_template: str | None = None) -> tuple[SentenceWriter, ScriptedModel]:
    model = ScriptedModel(iter(replies))
    return SentenceWriter(model, ScriptedTokenizer(chat_template)), model


def test_replies_become_clean_sentences() -> None:
    reply = """ a black cat on a sofa
- A cat, asleep in the sun
* "Two cats watch a bird."
12. The Cat   looks out of a window.
3) **My cat is hiding under the bed.**
• “A cat and a dog share a basket.”
"""
    writer, _ = scripted(reply + "\0")
    assert writer("cat", 6) == [
        "a black cat on a sofa",
        "A cat, asleep in the sun",
        "Two cats watch a bird.",
        "The Cat looks out of a window.",
        "My cat is hiding under the bed.",
        "A cat and a dog share a basket.",
    ]


def test_a_list_in_one_line_is_a_list() -> None:
    writer, _ = scripted("a cat on a sofa - a half-hidden cat • my cat, asleep\0")
    assert writer("cat", 3) == ["a cat on a sofa", "a half-hidden cat", "my cat, asleep"]


def test_it_can_be_stopped_at_any_token(causal: Path) -> None:
    class Stopped(Exception):
        pass

    calls: list[int] = []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        SentenceWriter.from_folder(causal)("cat", 5, on_progress=stop)
    assert calls == [0, 0, 0]


def test_what_is_no_sentence_about_the_concept_is_left_out() -> None:
    reply = """<think>
The user wants lines about a cat.
</think>
Here are more lines about a cat:
a dog on a sofa
a catalog of old stamps
cat
a cat
A CAT in the garden!
a cat in the garden
a cat {}
a good cat sleeps here""".format("very " * 40)
    writer, _ = scripted(reply + "\0")
    assert writer("cat", 2) == ["A CAT in the garden!", "a good cat sleeps here"]


def test_a_line_that_was_cut_off_is_left_out() -> None:
    writer, _ = scripted("a cat by the sea\na cat that is about to j", *["\0"] * (BATCH - 1), "a cat in the rain\0")
    assert writer("cat", 2) == ["a cat by the sea", "a cat in the rain"]


def test_examples_that_come_back_do_not_count() -> None:
    writer, model = scripted("\0")
    with pytest.raises(ValueError, match="nothing new"):
        writer("cat", 1)
    examples = re.findall(r"^- (.+)$", model.prompts[0], re.MULTILINE)
    assert len(examples) == language_model.EXAMPLES
    writer, _ = scripted("\n".join([*examples, "a cat of my own"]) + "\0")
    assert writer("cat", 1) == ["a cat of my own"]


@pytest.mark.parametrize("chat_template", [None, CHAT])
def test_the_prompt_names_the_concept(chat_template: str | None) -> None:
    writer, model = scripted("the red car stops here\0", chat_template=chat_template)
    writer("a red car", 1)
    (prompt,) = model.prompts
    assert '"red car"' in prompt
    if chat_template:
        assert prompt.startswith("<user>") and prompt.endswith(f"{language_model.CHAT_ENDING}<model>")
    else:
        assert prompt.endswith("\n-")


def test_a_model_that_runs_dry_is_not_asked_for_ever() -> None:
    writer, model = scripted("a cat by the sea\0")
    with pytest.raises(ValueError, match=r"wrote 1 of 5 sentences about 'cat'.*raise the temperature"):
        writer("cat", 5)
    assert len(model.prompts) == 1 + PATIENCE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count is 0; it must be at least 1"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"concept": "?"}, "must be a word or a phrase"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    writer, _ = scripted("\0")
    with pytest.raises(ValueError, match=message):
        writer(**{"concept": "cat", "count": 1} | settings)


# --- folders


def test_a_prompt_that_does_not_fit(tmp_path: Path) -> None:
    writer = SentenceWriter.from_folder(make_folder(tmp_path, "causal", positions=200))
    with pytest.raises(ValueError, match=rf"reply may have {REPLY}, but the language model sees 200 at most"):
        writer("cat", 1)


def test_missing_and_corrupt_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no language model in .*nowhere.*config\.json"):
        SentenceWriter.from_folder(tmp_path / "nowhere")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        folder = make_folder(tmp_path / name, "causal")
        (folder / name).write_bytes((folder / name).read_bytes()[:40])
        with pytest.raises(ValueError, match=rf"{re.escape(str(folder))} cannot be read as a language model"):
            SentenceWriter.from_folder(folder)


def test_a_model_that_writes_nothing(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="choose one that generates text"):
        SentenceWriter.from_folder(tmp_path)


def test_code_of_a_model_does_not_run(causal: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "causal")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {k: "mine.Mine" for k in ("AutoConfig", "AutoModelForCausalLM")}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="cannot be read as a language model"):
        SentenceWriter.from_folder(folder)
    assert not (tmp_path / "ran").exists()
