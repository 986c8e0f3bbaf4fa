"""Sentences from a language model on the user's machine, through transformers (4.5x and 5.x).

Parmar et al. (2023), arXiv:2302.03027, section 3.2, have GPT-3 write about a thousand sentences for each concept. Any
causal or sequence-to-sequence model does it here, tuned for chat or not. What it writes is filtered: a sentence must
name the concept and be new.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from .english import Noun
from .folders import LOCAL, MODEL, blamed_on
from .sentence_grammar import sentences_about

REQUEST = """Write short descriptions of pictures. Every one is a single natural sentence or phrase and has the words \
"{concept}" in it. Vary the scene, the place, the light, what happens and how the sentence begins.

{examples}
-"""
"""What the model is asked, with sentences of the grammar as a pattern; a model without chat goes on with the list."""

CHAT_ENDING = "Write twenty more such lines, all different. No comments."

EXAMPLES = 6
BATCH = 8  # replies asked for at once
REPLY = 320  # tokens: about twenty lines
PATIENCE = 5  # batches in a row without a new sentence
WORDS = range(3, 31)  # of an acceptable sentence

OnProgress = Callable[[int, int], None] | None
"""Called after every token with the number of sentences so far and their total; may raise to stop."""


class SentenceWriter:
    """A language model as a `SentenceSource`.

    Attributes:
        model: the network, an `nn.Module`; move it at will, inputs follow its device.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Join a model and its tokenizer; `from_folder` makes them."""
        self.model: Any = model.eval()
        self._tokenizer: Any = tokenizer

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> SentenceWriter:
        """Load a model from a local folder; neither the network nor code of the model's own is ever used.

        Args:
            folder: holds config.json, the weights and the tokenizer, as on Hugging Face.
            dtype: of the weights.

        Raises:
            FileNotFoundError: no such folder, or no config.json in it.
            ValueError: a file is missing or corrupt, or the model does not generate text.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"There is no language model in {folder}. Put the files of one there: config.json, the weights "
                "(.safetensors) and the tokenizer."
            )
        with _blamed_on(folder):
            config: Any = cast(Any, AutoConfig).from_pretrained(folder, **LOCAL)
            auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model, report = auto.from_pretrained(folder, **MODEL)
            tokenizer: Any = cast(Any, AutoTokenizer).from_pretrained(folder, **LOCAL)
        if missing := sorted(report["missing_keys"]):
            raise ValueError(
                f"The weights in {folder} lack {len(missing)} tensors of a language model, {missing[0]} for one. "
                "Download the model again, or choose one that generates text."
            )
        return cls(model.to(dtype), tokenizer)

    @torch.no_grad()
    def __call__(
        self, concept: str, count: int, seed: int = 0, *, temperature: float = 1.0, on_progress: OnProgress = None
    ) -> list[str]:
        """Have the model write sentences until there are enough.

        Args:
            concept: a word or phrase, as the grammar takes it.
            count: how many sentences, at least 1.
            seed: the same seed on the same device gives the same sentences. Torch's own generators of CPUs and CUDA
                are left as they were.
            temperature: of the sampling; higher is more varied, and less sensible.
            on_progress: told how far it is; the number grows with each batch of replies.

        Returns:
            `count` different sentences that name the concept.

        Raises:
            ValueError: a setting out of its range, a prompt too long for the model, or a model that stops coming up
                with new sentences about the concept.
        """
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1.")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0.")
        noun, found, fruitless, batch = Noun.parse(concept), dict[str, str](), 0, 0

        def report() -> None:
            if on_progress is not None:
                on_progress(min(len(found), count), count)

        device: torch.device = next(self.model.parameters()).device
        generators = cast(Any, torch.random)
        with generators.fork_rng(devices=[device] if device.type == "cuda" else []):
            _seed(device, seed)
            while len(found) < count:
                before, examples = len(found), sentences_about(concept, EXAMPLES, seed + batch)
                shown = {_gist(example) for example in examples}
                for line in self._lines(noun.text, examples, temperature, report):
                    if _is_about(line, noun) and _gist(line) not in shown:
                        found.setdefault(_gist(line), line)
                report()
                fruitless, batch = (0 if len(found) > before else fruitless + 1), batch + 1
                if fruitless == PATIENCE:
                    raise ValueError(
                        f"The language model wrote {len(found)} of {count} sentences about {concept!r} and then "
                        f"nothing new in {PATIENCE * BATCH} replies. Ask for fewer, raise the temperature, or choose a "
                        "larger model."
                    )
        return list(found.values())[:count]

    def _lines(self, concept: str, examples: list[str], temperature: float, on_token: Callable[[], None]) -> list[str]:
        """Ask for more sentences like the examples, `BATCH` times at once."""
        folder: str = self.model.name_or_path
        with _blamed_on(folder):
            prompt = self._prompt(concept, examples)
            start = 1 if self.model.config.is_encoder_decoder else prompt.shape[1]
            limit = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 10**9))
        if start + REPLY > limit:
            raise ValueError(
                f"The prompt has {prompt.shape[1]} tokens and the reply may have {REPLY}, but the language model sees "
                f"{limit} at most. Choose another model, or a shorter concept."
            )
        stopped: list[Exception] = []

        def stops(tokens: Tensor, scores: Tensor) -> Tensor:
            try:
                on_token()
            except Exception as error:  # the cancel button's, say: raised again below, where nobody blames the folder
                stopped.append(error)
            return torch.full((len(tokens),), bool(stopped), device=tokens.device)

        with _blamed_on(folder):
            tokens: Tensor = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=REPLY,
                num_return_sequences=BATCH,
                do_sample=True,
                temperature=temperature,
                top_p=0.95,
                top_k=0,
                pad_token_id=self._tokenizer.eos_token_id,
                stopping_criteria=StoppingCriteriaList([cast(Any, stops)]),
            )
            ends = tokens[:, start:] == self._tokenizer.eos_token_id
            texts: list[str] = [self._tokenizer.decode(row, skip_special_tokens=True) for row in tokens[:, start:]]
            replies = list(zip(texts, map(bool, ends.any(1)), strict=True))
        if stopped:
            raise stopped[0]
        return [line for reply, ended in replies for line in _split(reply, ended)]

    def _prompt(self, concept: str, examples: list[str]) -> Tensor:
        """What the model is asked, (1, tokens)."""
        request = REQUEST.format(concept=concept, examples="\n".join(f"- {example}" for example in examples))
        if self._tokenizer.chat_template:
            request = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": f"{request.removesuffix('-')}\n{CHAT_ENDING}"}],
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=False,
            )
        inputs = self._tokenizer(request, return_tensors="pt", add_special_tokens=not self._tokenizer.chat_template)
        return inputs.input_ids.to(self.model.device)


_blamed_on = partial(
    blamed_on,
    what="a language model",
    remedy="It must be a causal or sequence-to-sequence model that transformers knows, with its tokenizer; GGUF files "
    "are not read.",
)


def _split(reply: str, ended: bool) -> list[str]:
    """The lines of a reply without the marks of a list, quotes, and what the model thought first.

    Args:
        reply: a list; some tokenizers make one line of it.
        ended: whether the model came to an end; else the last line was cut off, and is left out.
    """
    lines = re.split(r"\n|\s[-•]\s", reply.rpartition("</think>")[2])
    bare = (re.sub(r"^\s*(?:[-*•]|\d+[.):])?\s*", "", line) for line in (lines if ended else lines[:-1]))
    return [" ".join(line.strip(" \t\"“”'*").split()) for line in bare]


def _seed(device: torch.device, seed: int) -> None:
    """Seed the generator that a device samples with, and no other: `torch.manual_seed` would seed those of all."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        cast(Any, torch).get_device_module(device).manual_seed(seed)


def _is_about(sentence: str, noun: Noun) -> bool:
    """Whether a line names the concept, is as long as a sentence, and no heading."""
    return bool(noun.mentions(sentence)) and len(sentence.split()) in WORDS and not sentence.endswith(":")


def _gist(sentence: str) -> str:
    """What two sentences share that differ only in case, spaces and punctuation."""
    return " ".join(re.findall(r"\w+", sentence.lower()))
