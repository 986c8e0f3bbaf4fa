"""Train the captioner: `python -m tiny_zoo.train_blip`; the same command resumes.

A BLIP of transformers in miniature learns to say everything that a picture of the world shows. It ends in
`weights/blip/tiny_zoo`, a folder in the layout of every BLIP captioner, in half precision, and prints how often the
captions of held-out scenes are right. This is the one training that needs transformers.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BlipConfig, BlipForConditionalGeneration

from pix2pix_zero_core.integrations.captioner import Captioner, ImagePreprocessing

from .captions import END, PAD, START, UNKNOWN, VOCABULARY, caption, read_attributes
from .training import RUNS, WEIGHTS, Run, pictures, training_pictures
from .world import ATTRIBUTES, Scene, sample_scene

PREPROCESS = ImagePreprocessing(size=128, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENS = (*SPECIAL_TOKENS, ",", *(word for word in VOCABULARY if word not in (PAD, START, END, UNKNOWN)))
"""BERT's special tokens, then the words of the world; ids are places in this list."""


def make_model() -> BlipForConditionalGeneration:
    """A BLIP of 1.1 million parameters for pictures of 128 pixels and captions of up to 64 tokens."""
    width = {"hidden_size": 128, "num_attention_heads": 4}
    text = {"num_hidden_layers": 2, "intermediate_size": 256, "encoder_hidden_size": 128, "vocab_size": len(TOKENS)}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0, "max_position_embeddings": 64}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    vision = {"num_hidden_layers": 3, "intermediate_size": 512, "image_size": PREPROCESS.size, "patch_size": 16}
    config = BlipConfig(text_config=width | text | ends | no_dropout, vision_config=width | vision)
    return BlipForConditionalGeneration(config)


def write_tokenizer(folder: Path) -> None:
    """Write the files from which transformers makes a BERT tokenizer of whole words."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def export(model: nn.Module, folder: Path) -> None:
    """Write a BLIP folder with the model's weights in half precision; an old folder is replaced when all is written."""
    unfinished = folder.with_suffix(".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_tokenizer(unfinished)
    square = {"height": PREPROCESS.size, "width": PREPROCESS.size}
    settings = {"size": square, "image_mean": PREPROCESS.mean, "image_std": PREPROCESS.std, "resample": 3}
    (unfinished / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    half = make_model()
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def share_right(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """How often captions name the true value of each attribute; no accessory is right when none is named."""
    told = [{"accessory": "none"} | read_attributes(text) for text in captions]
    return {
        attribute: sum(t.get(attribute) == getattr(scene, attribute) for t, scene in zip(told, scenes, strict=True))
        / len(scenes)
        for attribute in ATTRIBUTES
    }


def main() -> None:
    """Train, export and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--scenes", type=int, default=16000, help="training pictures, 48 KB of memory each")
    parser.add_argument("--held-out", type=int, default=500, help="pictures of each evaluation")
    parser.add_argument("--every", type=int, default=500, help="steps between two evaluations")
    parser.add_argument("--output", type=Path, default=WEIGHTS / "blip" / "tiny_zoo")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long, whatever the steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    write_tokenizer(RUNS / "blip_tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(RUNS / "blip_tokenizer", local_files_only=True)
    scenes = [sample_scene(seed) for seed in range(arguments.scenes)]
    train = training_pictures(arguments.scenes)
    with device:
        model = make_model()
    run = Run("blip", model, arguments.lr, arguments.steps, ema=0.998, seconds=arguments.seconds)

    def channels_last(stack: Tensor) -> Tensor:
        return stack.movedim(1, -1).to(device).float() / 255

    def batch_of(step: int) -> tuple[Tensor, ...]:
        rng = random.Random(step)
        rows = [rng.randrange(len(scenes)) for _ in range(arguments.batch)]
        texts = [caption(scenes[row], rng, keep=tuple(ATTRIBUTES)) for row in rows]
        tokens = tokenizer(texts, padding=True, return_tensors="pt").to(device)
        return PREPROCESS(channels_last(train[rows])), tokens.input_ids, tokens.attention_mask

    def loss_of(pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        labels = ids.masked_fill(mask == 0, -100)
        with torch.autocast(device.type, torch.bfloat16):
            return model(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels).loss

    def report(captioner: Captioner, split: Literal["validation", "test"], beams: int) -> str:
        captions: list[str] = []
        for images in pictures(arguments.held_out, split).split(100):
            captions += captioner(channels_last(images), beams=beams)
        right = share_right(captions, [sample_scene(seed, split) for seed in range(arguments.held_out)])
        return ", ".join(f"{attribute} {share:.3f}" for attribute, share in right.items()) + f' "{captions[0]}"'

    def evaluate(averaged: nn.Module) -> str:
        assert isinstance(averaged, BlipForConditionalGeneration)
        return report(Captioner(averaged, tokenizer, PREPROCESS), "validation", beams=1)

    # Not replayed: the lengths of the captions differ from batch to batch.
    averaged = run.train(batch_of, loss_of, evaluate, every=arguments.every, replayed=False)
    export(averaged, arguments.output)
    captioner = Captioner.from_folder(arguments.output, device=device)
    print(f"{arguments.output}: {report(captioner, 'test', beams=3)}")


if __name__ == "__main__":
    main()
