"""What the shipped graphs say to who opens them."""

from __future__ import annotations

from .graph import Note


def introduction(text: str, height: int = 460, width: int = 320) -> Note:
    """The note left of a graph."""
    return Note("How to use it", text, (width, height))


def beside(text: str) -> Note:
    """The note left of a graph that fills the screen."""
    return introduction(text, 1140, 280)


# ------------------------------------------------------------------------------------------------ notes of the groups

CAPTION = Note(
    "caption: what to turn",
    """\
**model**: a folder of `models/blip`. **prefix**: how the caption begins. **beams**: 1 is fastest. **max_tokens**: its
longest length.

Caption wrong? Put a *String* node with your own in its place.
""",
    (320, 100),
)
DIRECTION = Note(
    "direction: what to turn",
    """\
- **edit**: what becomes what. `custom` takes your words, or sentences, in **source** and **target**; **sentences** are
  made up around a word, and more of them keep other things as they are.
- **strength**: how far to go. 1 is the whole edit, a little more makes it show surely, -1 leads the other way.
""",
    (320, 130),
)
WORD_SWAP = Note(
    "word swap: what to turn",
    """\
- **find**: what the caption says, as it stands at *caption*; **replace**: what it becomes.

There is no **strength** here. Change too weak: raise **cfg** at the sampler.
""",
    (320, 130),
)
TWO_DIRECTIONS = Note(
    "two edits: what to turn",
    """\
Each **Apply Edit Direction** adds its edit to the text that it is given. Put more of them in a row for more edits.

- **edit**: what becomes what.
- **strength**: the share of each edit. 0 leaves one out, and the other alone remains.

*Combine Edit Directions* adds two directions to one, which *Save Edit Direction* keeps for later.
""",
    (320, 180),
)
INVERT = Note(
    "invert: what to turn",
    """\
- **steps**: more is more exact, and slower.
- **regularization**, **kl**: how strongly the noise is kept white. Lower both if *reconstruction* is off.
- **fixed_point**: refinements of a step. 0 is plain DDIM.
- **reconstruct**: off saves a model call a step.

With **noise_from** *inversion* look at *reconstruction* first: what is wrong there is lost to the edit.
""",
    (320, 140),
)
EDIT = Note(
    "edit: what to turn",
    """\
- **guidance**: how strongly the layout is held, 0 to 1. Structure lost: raise it. Edit too weak: lower it.
- **cfg**: how strongly the new text is followed. **cfg_start**: when the edit begins; later leaves more in place.
- **region**: 0 edits everywhere, 0.4 where the texts disagree about the picture, 1 where they disagree most.
- **guidance_end**: when guidance stops; earlier is faster, and freer at the end.
- **noise_from**: *fresh* takes over only what the texts differ in; *inversion* is the paper's way, and moves more.
""",
    (320, 180),
)
STRENGTHS = Note(
    "strengths: what to turn",
    """\
- **values**: the strengths to try, with commas between them. 0 is no edit, 1 the whole, more exaggerates, less than 0
  leads the other way.

To try another knob, unplug **value** from **strength**, plug it into that knob, and change **name**.
""",
    (320, 130),
)
GUIDER = Note(
    "guider: what to turn",
    """\
- **sampler_name**: any that adds no noise, but not uni_pc, dpm_fast, dpm_adaptive, and no cfg_pp. euler, ddim and
  dpm_2 are exact.
- **scheduler**, **steps**: of inversion and sampler at once, since both take these *sigmas*.
- **noise_seed** does nothing: the sampler starts from the picture's own noise.
- **guidance**: how strongly the layout is held. **cfg**: how strongly the new text is followed.
""",
    (320, 170),
)
ATTENTION = Note(
    "attention maps: how to read them",
    """\
One sheet a word; bright is where the model looks for it. From left to right: from noise to picture. Above: the
original. Below: the edited picture. Where the two rows differ, the layout was lost: raise **guidance**.

- **words**: those to show, with commas between them. Empty: every word.
- **moments**: how many steps are shown.

The mask is a word's place in the picture, 0 to 1; use it wherever ComfyUI takes a mask.
""",
    (320, 210),
)
FOLDER = Note(
    "folder: what to know",
    """\
**folder** lists the folders inside ComfyUI's `input` folder. Put pictures into one and reload the page; `.png`, `.jpg`
and `.webp` are read, in no certain order.

Every picture goes through the graph by itself, with its own caption. All are scaled to one size.
""",
    (320, 120),
)
FRAMES = Note(
    "frames: what to know",
    """\
**folder** lists the folders inside ComfyUI's `input` folder. Put the frames of a video into one and reload the page;
`.png`, `.jpg` and `.webp` are read, in no certain order. To keep the order, load the video by a node that gives a
batch, and connect that.
""",
    (320, 120),
)
DISTILLED = Note(
    "distilled edit: what to turn",
    """\
- **file**: the edit, of `models/distilled_edits`; one network knows one edit. Those of `tiny_zoo/` come with the pack.
- **strength**: share of the edit; 0 is the picture.

Pictures may have any size, but things in them should be about as large as in those that the edit learned from: scale
before it.
""",
    (320, 150),
)
GENERATE = Note(
    "generate: what to turn",
    """\
- **prompt**: what the picture shows. It is the source text, too, so there is no caption.
- **seed**: another number, another picture.
- **width**, **height**: those that the model was trained on.
""",
    (320, 110),
)

# ------------------------------------------------------------------------------------------------------ introductions

TINY_ZOO = """
Everything here is **Tiny Zoo**, the miniature that comes with the pack: nothing to download. It knows only its own
drawn animals.
"""

HOW_IT_WORKS = """
## How it works
1. **BLIP** says what the picture shows.
2. The picture is traced back to its **noise**.
3. A **direction** turns the caption from cat to dog.
4. The sampler draws the new text while its **attention** stays where it was in the original.
"""

FIRST_STEPS = f"""\
# Edit a picture without a prompt
Press **Run**. A cat becomes a dog, in the same place.

1. **BLIP** says what the picture shows.
2. The picture is traced back to its **noise**.
3. A **direction** turns the caption from cat to dog.
4. The sampler draws the new text while its **attention** stays where it was in the original.
{TINY_ZOO}
## Next
Turn **strength** down to 0.5 and up to 2. Then another picture: drag one from the pack's folder `web/examples` onto
the node *picture*, and choose an **edit** that fits it, such as `tiny_zoo/horse2zebra` for `horse.png`.
"""

ONE_NODE = """\
# Edit a picture without a prompt
Press **Run**. A cat becomes a dog, in the same place.

**Another picture**: drop one of the pack's folder `web/examples` onto *picture*, and choose an **edit** that fits it,
such as `tiny_zoo/horse2zebra` for `horse.png`.

- **strength**: how far the edit goes; 1 is all of it, a little more makes it show surely.
- **guidance**: how strongly the layout is held.

*Edit a Picture* says below its widgets what it sees, and what is wrong. Open it to see every step.

This is **Tiny Zoo**, the miniature that comes with the pack. For photographs choose your Stable Diffusion checkpoint,
an **edit** that does not begin with `tiny_zoo/`, and a BLIP of `models/blip` at **caption_model**. None there? Open the
node and switch **download** on at *BLIP Caption*, once (1 GB).
"""

TWO_EDITS = f"""\
# Several edits at once
Press **Run**. A cat becomes a dog, and it gets glasses.

Two directions are added to the caption, one after the other; picture, caption and inversion are those of a single edit.
{TINY_ZOO}
## Next
Set one **strength** to 0 to see what the other does alone, then to 1.5. Or choose two other edits that begin with what
the picture shows.
"""

SWEEP = f"""\
# How strong should an edit be?
Press **Run**. The picture is inverted once and edited five times; the contact sheet shows the picture and then the
edits, from left to right, with the strength below.
{TINY_ZOO}
## Next
Change **values**, or plug **value** into **cfg** instead, or for **guidance** in *share* values from 0 to 1: all that
comes after it runs once for each.
"""

WITH_GUIDER = f"""\
# The edit as a GUIDER
Press **Run**. The same edit as in `tiny_zoo_edit`, but ComfyUI's own *SamplerCustomAdvanced* samples: choose the
sampler and the schedule, and add what you use with it.

*Cross-Attention Guider* puts the picture's noise where the sampler would start from random noise, and holds the layout
between its steps.
{TINY_ZOO}
## Next
Try **dpm_2** as sampler. *Cross-Attention Guidance* does the same to a MODEL, for KSampler.
"""

LOOKING = f"""\
# Where does the model look?
Press **Run**. Attention Maps shows for each word of the caption where the model looked, in the original and in the
edit.
{TINY_ZOO}
## Next
Set **noise_from** to *inversion*, **guidance_start** to 0, and **guidance** to 0: the head moves, and the lower rows go
their own way. With a **guidance** of 0.5 both stay. In *fresh* noise little moves by itself.
"""

WHOLE_FOLDER = f"""\
# A folder of pictures
Press **Run**. Three cats become dogs, each with its own caption and in its own place.

The workflow brings the folder `tiny_zoo_cats` along, inside ComfyUI's `input` folder.
{TINY_ZOO}
## Next
Use your own folder: put it into `input`, reload the page and choose it at *pictures*. For photographs choose your
checkpoint, its **width** and **height**, a BLIP of `models/blip` and an **edit** that does not begin with `tiny_zoo/`.
"""

ONE_PASS = """\
# An edit in one pass
Press **Run**. Three cats become dogs, each in one pass of a small network: no checkpoint, no caption, no noise.

The network learned the edit from pairs of pictures that the whole method made, by `pix2pix-zero distill`. It is fast
enough for previews and the frames of a video.

The workflow brings the folder `tiny_zoo_frames` along, inside ComfyUI's `input` folder.

## Next
Distill an edit of your own model on your own pictures:

`pix2pix-zero distill --edit cat2dog --model MODEL --blip BLIP --pictures FOLDER --output cat2dog.safetensors`

Put the file into `models/distilled_edits` and reload the page.
"""

BLIP_NEEDED = """\
- **caption**: switch **download** on at *BLIP Caption* to have it fetched once (1 GB), or put the files of
  `Salesforce/blip-image-captioning-base` from Hugging Face into `models/blip/blip-image-captioning-base`.
"""

SD15 = f"""\
# Edit a photo without a prompt
With Stable Diffusion 1.5. Choose a photo of a cat at *picture*, or another **edit** for another photo, and press
**Run**.

Two models are needed:
- **checkpoint**: `v1-5-pruned-emaonly-fp16.safetensors`, or any other of the 1.x family, in `models/checkpoints`. The
  browser offers to download it.
{BLIP_NEEDED}{HOW_IT_WORKS}"""

SDXL = f"""\
# Edit a photo without a prompt
With Stable Diffusion XL, at 1024 pixels. Choose a photo of a cat at *picture*, or another **edit** for another photo,
and press **Run**.

Two models are needed:
- **checkpoint**: `sd_xl_base_1.0.safetensors`, or another of its family, in `models/checkpoints`. The browser offers to
  download it. Not the refiner.
{BLIP_NEEDED}
Little memory? Set **checkpointing** to `always`. It takes too long? Lower **guidance_end**, or **steps** at *Invert*.
{HOW_IT_WORKS}"""

FLOW = f"""\
# Edit with a flow model
Press **Run**. A cat becomes a dog, in the same place: the edit of `tiny_zoo_edit`, by a transformer of Stable
Diffusion 3's kind in place of a UNet.
{TINY_ZOO}{HOW_IT_WORKS}
## What is different
- The picture is traced back to pure noise, at time 1, in the flow's own coordinates.
- Text and image meet in one attention call; its image-to-text part is what is held.
- The nodes and their settings are the same. Those of Stable Diffusion 3.5, Flux.1, Z-Image and Qwen-Image
  have other loaders and a few other numbers; Flux.1 is also told its guidance, Z-Image and Qwen-Image a shift of the
  times. In Anima's a word is swapped.
- This one is very small: faces smear, most where a dog becomes a cat or a painting a sketch. `tiny_zoo_edit` has
  cleaner pictures.

## Next
Turn **strength** down to 0.5 and up to 2, or drag another picture of the pack's folder `web/examples` onto
*picture* and choose an **edit** that fits it.
"""

UNSEEN = """
## Not tried with real weights
Nobody could, where this was built: the nodes were run with small networks of this kind and random weights. Tell us how
it went.
"""

WITH_MUCH_MEMORY = """
Out of memory? Lower the sides at *to the model's size*, to 768 or 512; write earlier **blocks** at the sampler, `0-5`.
Too slow? Lower **guidance_end**, or **steps** at *Invert*.
"""

SD35 = f"""\
# Stable Diffusion 3.5 medium
Choose a photo of a cat at *picture*, or another **edit** for another photo, and press **Run**.

## Files
The browser offers to download the first.
- **checkpoint**: `sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors`, 6.0 GB, in `models/checkpoints`; the text
  encoders are in it.
{BLIP_NEEDED}
## Memory
By count, a guided step keeps 4.4 GiB beside the weights at 1024 pixels, 1.1 at 512, with **checkpointing** `always`.
{WITH_MUCH_MEMORY}
## Settings
**cfg** 4 is near that of ComfyUI's own template. Large is of the same kind and takes more memory; Turbo was not tried.
{UNSEEN}"""

FLUX = f"""\
# Flux.1 dev
Choose a photo of a cat at *picture*, or another **edit** for another photo, and press **Run**.

## Files
The browser offers to download these; the first asks for consent to its licence on Hugging Face.
- `flux1-dev.safetensors`, 23.8 GB, in `models/diffusion_models`. Little memory: **weight_dtype** `fp8_e4m3fn`.
- `t5xxl_fp16.safetensors`, 9.8 GB, and `clip_l.safetensors`, 0.2 GB, in `models/text_encoders`.
- `ae.safetensors`, 0.3 GB, in `models/vae`.
{BLIP_NEEDED}
## Memory
By count, a guided step keeps 8.9 GiB beside the weights at 1024 pixels, 2.3 at 512, with **checkpointing** `always`.
{WITH_MUCH_MEMORY}
## Settings
This model is told its guidance, so **cfg** stays 1 and the negative does nothing. *guidance of the source*: 1.5, that
of the target 5.5, as in FlowEdit; edit too weak: raise the latter. Not for schnell, Kontext and Fill.
{UNSEEN}"""

ANIMA = f"""\
# Anima
Needs a ComfyUI that knows Anima; its own template was made with 0.11. Choose a drawing of a cat at *picture*, or write
other words at *word swap*, and press **Run**.

## Files
The browser offers to download these.
- `anima-base-v1.0.safetensors`, 4.2 GB, in `models/diffusion_models`.
- `qwen_3_06b_base.safetensors`, 1.2 GB, in `models/text_encoders`.
- `qwen_image_vae.safetensors`, 0.3 GB, in `models/vae`.
{BLIP_NEEDED}
## Memory
By count, a guided step keeps 10.9 GiB beside the weights at 1024 pixels, 2.7 at 512, with **checkpointing** `always`.
{WITH_MUCH_MEMORY}
## Settings
Its network takes the words themselves beside what the encoder makes of them, so the edit is a **word swap** and no
direction. **cfg** 4 is that of ComfyUI's own template. The model draws, and was trained on tags: for a better source
text unplug the caption, and write your own there and at *word swap*.
{UNSEEN}"""

Z_IMAGE = f"""\
# Z-Image
The base model, not Turbo. Choose a photo of a cat at *picture*, or another **edit** for another photo, and press
**Run**.

## Files
The browser offers to download these.
- `z_image_bf16.safetensors`, 12.3 GB, in `models/diffusion_models`.
- `qwen_3_4b.safetensors`, 8.0 GB, in `models/text_encoders`.
- `ae.safetensors`, 0.3 GB, in `models/vae`.
{BLIP_NEEDED}
## Memory
By count, a guided step keeps 3.5 GiB beside the weights at 1024 pixels, 0.9 at 512, with **checkpointing** `always`.
{WITH_MUCH_MEMORY}
## Settings
**cfg** 4 and the **shift** of 3 are those of ComfyUI's own template. Turbo follows a text without cfg and in a few
steps; it was not tried.
{UNSEEN}"""

QWEN_IMAGE = f"""\
# Qwen-Image
The model that draws, not Qwen-Image-Edit: its own style and LoRAs stay. Choose a photo of a cat at *picture*, or
another **edit** for another photo, and press **Run**.

## Files
The browser offers to download these.
- `qwen_image_fp8_e4m3fn.safetensors`, 20.4 GB, in `models/diffusion_models`.
- `qwen_2.5_vl_7b_fp8_scaled.safetensors`, 9.4 GB, in `models/text_encoders`.
- `qwen_image_vae.safetensors`, 0.3 GB, in `models/vae`.
{BLIP_NEEDED}
## Memory
By count, a guided step keeps 2.8 GiB beside the weights at 1024 pixels, 0.7 at 512, with **checkpointing** `always`.
{WITH_MUCH_MEMORY}
## Settings
**cfg** 4 and the **shift** of 3.1 are those of ComfyUI's own template; so is the size, 1328 pixels, where 1024 are
here for speed. Leave Lightning LoRAs out: models of a few steps were not tried.
{UNSEEN}"""

GENERATED = """\
# Edit a generated picture
With Stable Diffusion 1.5: it draws a cat from the prompt, and the cat becomes a dog in the same place. Press **Run**.

One model is needed: `v1-5-pruned-emaonly-fp16.safetensors`, or any other of the 1.x family, in `models/checkpoints`.
The browser offers to download it.

## How it works
1. The **prompt** is the source text: nothing has to be captioned.
2. The picture's latent is traced back to the **noise** from which the prompt alone leads to it.
3. A **direction** turns the prompt from cat to dog.
4. The sampler draws the new text while its **attention** stays where it was.

Change the **edit** together with the prompt: an edit begins with something that the picture shows.
"""

BLUEPRINT = """\
# A whole edit in one node
Connect a picture of any size and a checkpoint; choose an **edit** that begins with what the picture shows.

The edited picture comes out at **edited**, and sampled back without an edit at **reconstruction**. **caption** is what
BLIP saw, **warning** what is wrong.

Open the node to turn the other knobs.
"""

BLUEPRINT_HELP = """\
A whole edit in one node: connect a picture of any size and a checkpoint, choose what becomes what, and press Run.

**Inputs**
- **image**: any size; **fit** says whether it keeps its shape, or is cropped or padded to a square.
- **model**, **clip**, **vae**: of one checkpoint.
- **edit**: what becomes what; it begins with something that the picture shows. Those of `tiny_zoo/` are for Tiny Zoo.
- **strength**: how far the edit goes. 1 is all of it, a little more makes it show surely, negative leads the other way.
- **guidance**: how strongly the layout is held. Structure lost: raise it. Edit too weak: lower it.
- **cfg**: how strongly the new text is followed.
- **steps**: more is more exact, and slower.
- **caption_model**: the BLIP that says what the picture shows and judges the edit.

**Outputs**
- **edited**, **reconstruction**: the edited picture, and the picture sampled back without an edit.
- **before_and_after**: both side by side. **caption**: what BLIP saw.
- **warning**: what is wrong; empty if nothing is. The node shows it in amber below its widgets.

Open the node to see every step.
"""
