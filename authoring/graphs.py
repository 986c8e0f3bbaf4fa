"""The shipped graphs: which nodes, what is connected to what, and which stand together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from launcher.runtime import PACK

from . import notes
from .graph import Graph, Link, ModelFile, Node, Note
from .kinds import USUAL, WIDTH


class Model(NamedTuple):
    """A checkpoint and what goes with it.

    Attributes:
        title: of its loader.
        file: a name in models/checkpoints.
        side: width and height that it was trained on, pixels.
        blip: a folder in models/blip.
        edit: a named edit, from cat to dog.
        url: where the file is; empty for what comes with the pack.
    """

    title: str
    file: str
    side: int
    blip: str
    edit: str
    url: str = ""


class Parts(NamedTuple):
    """A model in several files, as ComfyUI's own templates load it, and what goes with it.

    Attributes:
        title: of the loader of its network.
        network: in models/diffusion_models.
        encoders: that read its texts, one or two, in models/text_encoders.
        reads: what the loader of these calls the model.
        autoencoder: in models/vae.
        edit: as Model's, as are blip and side.
        shift: of its noise levels, where the templates set it.
        told: what a model with guidance as an input is told for the source and for the target text.
    """

    title: str
    network: ModelFile
    encoders: tuple[ModelFile, ...]
    reads: str
    autoencoder: ModelFile
    edit: str = "cat2dog"
    blip: str = "blip-image-captioning-base"
    side: int = 1024
    shift: float | None = None
    told: tuple[float, float] | None = None


def _file(directory: str, url: str) -> ModelFile:
    """A file on Hugging Face, by what comes after the address."""
    return ModelFile(url.rpartition("/")[2], f"https://huggingface.co/{url}", directory)


TINY_ZOO = Model("Load Tiny Zoo", "tiny_zoo.safetensors", 128, "tiny_zoo", "tiny_zoo/cat2dog")
TINY_ZOO_FLOW = TINY_ZOO._replace(title="Load Tiny Zoo's flow model", file="tiny_zoo_flow.safetensors")
ROOM_TO_SAY = 400  # height below a node's widgets, for what it says after a run and the picture while it runs

SD15 = Model(
    "Load Stable Diffusion 1.5",
    "v1-5-pruned-emaonly-fp16.safetensors",
    512,
    "blip-image-captioning-base",
    "cat2dog",
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
)
SDXL = Model(
    "Load Stable Diffusion XL",
    "sd_xl_base_1.0.safetensors",
    1024,
    "blip-image-captioning-base",
    "cat2dog",
    "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
)

# The addresses are those of ComfyUI's own templates; SD3.5 medium's is beside the large one's there.
SD35 = Model(
    "Load Stable Diffusion 3.5 medium",
    "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors",
    1024,
    "blip-image-captioning-base",
    "cat2dog",
    "https://huggingface.co/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/"
    "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors",
)
FLUX = Parts(
    "Load Flux.1 dev",
    _file("diffusion_models", "Comfy-Org/flux1-dev/resolve/main/flux1-dev.safetensors"),
    (
        _file("text_encoders", "comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors"),
        _file("text_encoders", "comfyanonymous/flux_text_encoders/resolve/main/t5xxl_fp16.safetensors"),
    ),
    "flux",
    _file("vae", "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors"),
    told=(1.5, 5.5),  # FlowEdit's settings for this model, which the default noise is like
)
ANIMA = Parts(
    "Load Anima",
    _file(
        "diffusion_models",
        "circlestone-labs/Anima/resolve/main/split_files/diffusion_models/anima-base-v1.0.safetensors",
    ),
    (
        _file(
            "text_encoders", "circlestone-labs/Anima/resolve/main/split_files/text_encoders/qwen_3_06b_base.safetensors"
        ),
    ),
    "stable_diffusion",
    _file("vae", "circlestone-labs/Anima/resolve/main/split_files/vae/qwen_image_vae.safetensors"),
)
Z_IMAGE = Parts(
    "Load Z-Image",
    _file("diffusion_models", "Comfy-Org/z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors"),
    (_file("text_encoders", "Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors"),),
    "lumina2",
    _file("vae", "Comfy-Org/z_image_turbo/resolve/main/split_files/vae/ae.safetensors"),
    shift=3.0,
)
QWEN_IMAGE = Parts(
    "Load Qwen-Image",
    _file(
        "diffusion_models",
        "Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
    ),
    (
        _file(
            "text_encoders",
            "Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
        ),
    ),
    "qwen_image",
    _file("vae", "Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/vae/qwen_image_vae.safetensors"),
    shift=3.1,
)
LARGE: dict[str, Any] = {"cfg": 4.0, "checkpointing": "always"}
"""How models of billions of weights are sampled: cfg as in ComfyUI's templates, the gradient in little memory."""

# -------------------------------------------------------------------------------------------------------------- parts


class Edit(Graph):
    """An edit, step by step; each method adds the nodes of a step and returns them.

    Attributes:
        model: from the checkpoint, as are clip and vae.
        negative: the empty text that classifier-free guidance moves away from.
    """

    model: Link
    clip: Link
    vae: Link
    negative: Node

    def load(self, model: Model) -> Node:
        """Load a checkpoint."""
        models = (ModelFile(model.file, model.url, "checkpoints"),) if model.url else ()
        checkpoint = self.add("CheckpointLoaderSimple", model.title, models=models, ckpt_name=model.file)
        self.model, self.clip, self.vae = checkpoint["MODEL"], checkpoint["CLIP"], checkpoint["VAE"]
        return checkpoint

    def load_parts(self, model: Parts) -> tuple[Node, ...]:
        """Load a model in several files."""
        network = self.add("UNETLoader", model.title, models=(model.network,), unet_name=model.network.name)
        names = [file.name for file in model.encoders]
        if len(names) == 1:
            encoder = self.add("CLIPLoader", models=model.encoders, clip_name=names[0], type=model.reads)
        else:
            encoders: dict[str, Any] = {"clip_name1": names[0], "clip_name2": names[1]}
            encoder = self.add("DualCLIPLoader", models=model.encoders, type=model.reads, **encoders)
        autoencoder = self.add("VAELoader", models=(model.autoencoder,), vae_name=model.autoencoder.name)
        self.model, self.clip, self.vae = network["MODEL"], encoder["CLIP"], autoencoder["VAE"]
        if model.shift is None:
            return network, encoder, autoencoder
        shifted = self.add("ModelSamplingAuraFlow", model=self.model, shift=model.shift)
        self.model = shifted["MODEL"]
        return network, encoder, autoencoder, shifted

    def text_pair(self, text: str | Link, title: str = "source text") -> tuple[Node, Node]:
        """Encode a text, and none as the negative."""
        source, self.negative = self.text(text, title), self.text("", "negative: no text")
        return source, self.negative

    def scale(self, images: Link, side: int) -> Node:
        """Bring pictures to the size that the model was trained on."""
        return self.add("ImageScale", "to the model's size", image=images, width=side, height=side)

    def encode(self, picture: Link) -> Node:
        """Encode a picture."""
        return self.add("VAEEncode", pixels=picture, vae=self.vae)

    def caption(self, picture: Link, blip: str | Link, room: int | None = None) -> Node:
        """Say what pictures show."""
        return self.add("Pix2PixZeroBLIPCaption", room=room, image=picture, model=blip)

    def show(self, text: Link) -> Node:
        """Show the caption."""
        return self.add("PreviewAny", "caption", source=text)

    def text(self, text: str | Link, title: str = "source text") -> Node:
        """Encode a text."""
        return self.add("CLIPTextEncode", title, text=text, clip=self.clip)

    def direction(self, edit: str | Link, title: str = "") -> Node:
        """Find the direction of a named edit."""
        return self.add("Pix2PixZeroEditDirection", title, clip=self.clip, edit=edit)

    def turn(self, source: Link, direction: Node, title: str = "target text", **changed: Any) -> Node:
        """Turn the source text into the target text."""
        inputs: dict[str, Any] = {"source": source, "direction": direction["direction"], "clip": self.clip, **changed}
        return self.add("Pix2PixZeroApplyEditDirection", title, **inputs)

    def invert(self, latent: Link, source: Link, **changed: Any) -> Node:
        """Trace the picture back to its noise."""
        inputs: dict[str, Any] = {"model": self.model, "latent": latent, "source": source, **changed}
        return self.add("Pix2PixZeroRegularizedDDIMInvert", **inputs)

    def sample(self, inversion: Node, source: Link, target: Link, **changed: Any) -> Node:
        """Sample the edited picture."""
        return self.add("Pix2PixZeroCrossAttnGuidedSampler", **self.guided(inversion, source, target, **changed))

    def guided(self, inversion: Node, source: Link, target: Link, **changed: Any) -> Mapping[str, Any]:
        """What the guided sampler and the guider take."""
        return {
            "model": self.model,
            "inversion": inversion["inversion"],
            "source": source,
            "target": target,
            "negative": self.negative["CONDITIONING"],
            **changed,
        }

    def decode(self, latent: Link) -> Node:
        """Decode a latent."""
        return self.add("VAEDecode", samples=latent, vae=self.vae)

    def save(self, images: Link, title: str, width: int = WIDTH, room: int | None = None) -> Node:
        """Save pictures under their title."""
        prefix = f"{PACK}/{title.replace(' ', '_')}"
        return self.add("SaveImage", title, body_width=width, room=room, images=images, filename_prefix=prefix)

    def compare(self, source: Link, reconstruction: Node, edited: Node) -> Node:
        """Put picture, reconstruction and edited picture side by side."""
        return self.add(
            "Pix2PixZeroCompare", source=source, edited=edited["IMAGE"], reconstruction=reconstruction["IMAGE"]
        )


class PictureEdit(Edit):
    """An edit of one picture, up to its source text.

    Attributes:
        picture: what is edited.
        latent: the same, encoded.
        said: its caption.
        source: its caption, as the source text.
        loaders, brought: the nodes that load the model, and those up to the encoded picture.
        picture_group, caption_group: the columns of these nodes and of the following.
    """

    def __init__(self, model: Model | Parts, note: Note) -> None:
        """Open the example and say what it shows."""
        super().__init__(note)
        self.loaders = self.load_parts(model) if isinstance(model, Parts) else (self.load(model),)
        loaded = self.add("LoadImage", "picture", example="cat.png", image="cat.png")
        scaled = self.scale(loaded["IMAGE"], model.side)
        encoded = self.encode(scaled["IMAGE"])
        caption = self.caption(scaled["IMAGE"], model.blip)
        shown, (source, negative) = self.show(caption["caption"]), self.text_pair(caption["caption"])
        self.picture, self.latent = scaled["IMAGE"], encoded["LATENT"]
        self.said, self.source = caption["caption"], source["CONDITIONING"]
        self.brought = loaded, scaled, encoded
        self.picture_group = ((*self.loaders, *self.brought),)
        self.caption_group = ((caption, shown, source, negative, notes.CAPTION),)


# ------------------------------------------------------------------------------------------------------------- graphs


def one_edit(model: Model, note: Note) -> Graph:
    """One picture, edited along a direction; source, reconstruction and result are saved, and all side by side."""
    g = PictureEdit(model, note)
    direction = g.direction(model.edit)
    target = g.turn(g.source, direction, caption=g.said)
    inversion = g.invert(g.latent, g.source)
    sampler = g.sample(inversion, g.source, target["target"])
    reconstructed, edited = g.decode(inversion["reconstruction"]), g.decode(sampler["edited"])
    saved = [
        g.save(g.picture, "source"),
        g.save(reconstructed["IMAGE"], "reconstruction"),
        g.save(edited["IMAGE"], "edited"),
    ]
    compared = g.compare(g.picture, reconstructed, edited)
    together = g.save(compared["comparison"], "side by side")
    g.stacks = (
        {"Picture": g.picture_group},
        {"Caption": g.caption_group, "Edit direction": ((direction, target, notes.DIRECTION),)},
        {"Invert": ((inversion, reconstructed, notes.INVERT),)},
        {"Edit": ((sampler, edited, notes.EDIT),)},
        {"Result": ((compared, together, saved[0]), (saved[2], saved[1]))},
    )
    return g


def flow_edit(
    model: Model | Parts, note: Note, steps: int = USUAL.steps, swap: tuple[str, str] | None = None, **settings: Any
) -> Graph:
    """One picture, edited with a flow model; result and all side by side are saved, on one screen.

    Args:
        model: what edits.
        note: left of the graph.
        steps: of the inversion.
        swap: a word of the caption and what to write in its place, for encoders that no direction fits.
        settings: of the sampler.
    """
    g = PictureEdit(model, note)
    told: tuple[Node, ...] = ()
    if swap is None:
        direction = g.direction(model.edit)
        target = g.turn(g.source, direction, caption=g.said)
        text, change = target["target"], (direction, target, notes.DIRECTION)
    else:
        swapped = g.add("StringReplace", "word swap", string=g.said, find=swap[0], replace=swap[1])
        target = g.text(swapped["STRING"], "target text")
        text, change = target["CONDITIONING"], (swapped, target, notes.WORD_SWAP)
    source = g.source
    if isinstance(model, Parts) and model.told is not None:
        told = tuple(
            g.add("FluxGuidance", f"guidance of the {name}", conditioning=link, guidance=value)
            for name, link, value in zip(("source", "target"), (source, text), model.told, strict=True)
        )
        source, text = (node["CONDITIONING"] for node in told)
    inversion = g.invert(g.latent, source, steps=steps)
    sampler = g.sample(inversion, source, text, **settings)
    reconstructed, edited = g.decode(inversion["reconstruction"]), g.decode(sampler["edited"])
    compared = g.compare(g.picture, reconstructed, edited)
    saved = g.save(edited["IMAGE"], "edited"), g.save(compared["comparison"], "side by side")
    g.stacks = (
        {"Model": (g.loaders,), "Picture": (g.brought,)},
        {"Caption": g.caption_group},
        {"Edit": ((*change, *told),)} if swap is None else {"Word swap": ((*change, *told),)},
        {"Invert": ((inversion, reconstructed, notes.INVERT),)},
        {"Sample": ((sampler, edited, notes.EDIT),)},
        {"Result": ((*saved, compared),)},
    )
    return g


def two_edits(model: Model, edits: tuple[str, str], note: Note) -> Graph:
    """One picture, edited along two directions at once."""
    g = PictureEdit(model, note)
    first, second = (g.direction(edit, f"{order} edit") for order, edit in zip(("first", "second"), edits, strict=True))
    once = g.turn(g.source, first, "first edit applied", caption=g.said)
    twice = g.turn(once["target"], second, "second edit applied", caption=g.said)
    inversion = g.invert(g.latent, g.source)
    sampler = g.sample(inversion, g.source, twice["target"])
    reconstructed, edited = g.decode(inversion["reconstruction"]), g.decode(sampler["edited"])
    compared = g.compare(g.picture, reconstructed, edited)
    saved = g.save(edited["IMAGE"], "edited"), g.save(compared["comparison"], "side by side")
    g.stacks = (
        {"Picture": g.picture_group},
        {"Caption": g.caption_group},
        {"Two edits": ((first, once, second, twice, notes.TWO_DIRECTIONS),)},
        {"Invert": ((inversion, reconstructed, notes.INVERT),)},
        {"Edit": ((sampler, edited, notes.EDIT),)},
        {"Result": ((*saved, compared),)},
    )
    return g


def strength_sweep(model: Model, note: Note) -> Graph:
    """One picture, edited at several strengths, on a contact sheet."""
    g = PictureEdit(model, note)
    direction, values = g.direction(model.edit), g.add("Pix2PixZeroValuesToTry", values="0.5, 0.75, 1, 1.25, 1.5")
    inversion = g.invert(g.latent, g.source, reconstruct=False)
    target = g.turn(g.source, direction, strength=values["value"], caption=g.said)
    sampler = g.sample(inversion, g.source, target["target"])
    edited = g.decode(sampler["edited"])
    sheet = g.add("Pix2PixZeroContactSheet", images=edited["IMAGE"], captions=values["caption"], source=g.picture)
    saved = g.save(sheet["sheet"], "contact sheet", width=2 * WIDTH)
    g.stacks = (
        {"Picture": g.picture_group},
        {"Caption": g.caption_group, "Edit direction": ((direction, values, target, notes.STRENGTHS),)},
        {"Invert": ((inversion, notes.INVERT),)},
        {"Edit": ((sampler, edited, notes.EDIT),)},
        {"Result": ((saved, sheet),)},
    )
    return g


def guider_edit(model: Model, note: Note) -> Graph:
    """One picture, edited by a GUIDER in ComfyUI's own sampler."""
    g = PictureEdit(model, note)
    direction = g.direction(model.edit)
    target = g.turn(g.source, direction, caption=g.said)
    schedule = g.add("BasicScheduler", model=g.model, scheduler="ddim_uniform", steps=USUAL.steps)
    euler, noise = g.add("KSamplerSelect"), g.add("RandomNoise")
    inversion = g.invert(g.latent, g.source, sigmas=schedule["SIGMAS"])
    guider = g.add("Pix2PixZeroCrossAttnGuider", **g.guided(inversion, g.source, target["target"]))
    sampled = g.add(
        "SamplerCustomAdvanced",
        noise=noise["NOISE"],
        guider=guider["guider"],
        sampler=euler["SAMPLER"],
        sigmas=schedule["SIGMAS"],
        latent_image=g.latent,
    )
    reconstructed, edited = g.decode(inversion["reconstruction"]), g.decode(sampled["output"])
    compared = g.compare(g.picture, reconstructed, edited)
    saved = g.save(edited["IMAGE"], "edited"), g.save(compared["comparison"], "side by side")
    g.stacks = (
        {"Picture": g.picture_group},
        {"Caption": g.caption_group, "Edit direction": ((direction, target, notes.DIRECTION),)},
        {"Sampler and schedule": ((schedule, euler, noise, notes.GUIDER),)},
        {"Invert": ((inversion, reconstructed, notes.INVERT),)},
        {"Edit": ((guider, sampled, edited),)},
        {"Result": ((*saved, compared),)},
    )
    return g


def attention_maps(model: Model, note: Note) -> Graph:
    """One edit, and where the model looked for each word."""
    g = PictureEdit(model, note)
    direction = g.direction(model.edit)
    target = g.turn(g.source, direction, caption=g.said)
    inversion = g.invert(g.latent, g.source)
    sampler = g.sample(inversion, g.source, target["target"])
    edited = g.decode(sampler["edited"])
    maps = g.add(
        "Pix2PixZeroAttentionMaps",
        model=g.model,
        inversion=inversion["inversion"],
        source=g.source,
        clip=g.clip,
        image=g.picture,
        text=g.said,
        edited=sampler["path"],
        target=target["target"],
    )
    mask = g.add("MaskToImage", mask=maps["mask"])
    saved = g.save(edited["IMAGE"], "edited")
    sheets, masks = g.save(maps["sheets"], "attention maps", width=2 * WIDTH), g.save(mask["IMAGE"], "masks")
    g.stacks = (
        {"Picture": g.picture_group},
        {"Caption": g.caption_group, "Edit direction": ((direction, target, notes.DIRECTION),)},
        {"Invert": ((inversion, notes.INVERT),)},
        {"Edit": ((sampler, edited, notes.EDIT),)},
        {"Attention": ((maps, mask, notes.ATTENTION), (sheets, masks)), "Result": ((saved,),)},
    )
    return g


def folder_edit(model: Model, folder: str, examples: tuple[str, ...], note: Note) -> Graph:
    """Every picture of a folder, edited by itself."""
    g = Edit(note)
    checkpoint = g.load(model)
    paths = tuple(f"{folder}/{name}" for name in examples)
    loaded = g.add("LoadImageDataSetFromFolder", "pictures", example=paths, folder=folder)
    scaled = g.scale(loaded["images"], model.side)
    encoded = g.encode(scaled["IMAGE"])
    caption = g.caption(scaled["IMAGE"], model.blip, room=60 + 50 * len(examples))
    shown, (source, negative) = g.show(caption["caption"]), g.text_pair(caption["caption"])
    direction = g.direction(model.edit)
    target = g.turn(source["CONDITIONING"], direction, caption=caption["caption"])
    inversion = g.invert(encoded["LATENT"], source["CONDITIONING"])
    sampler = g.sample(inversion, source["CONDITIONING"], target["target"])
    reconstructed, edited = g.decode(inversion["reconstruction"]), g.decode(sampler["edited"])
    compared = g.compare(scaled["IMAGE"], reconstructed, edited)
    saved = g.save(edited["IMAGE"], "edited"), g.save(compared["comparison"], "side by side")
    g.stacks = (
        {"Pictures": ((checkpoint, loaded, scaled, encoded, notes.FOLDER),)},
        {
            "Captions": ((caption, shown, source, negative, notes.CAPTION),),
            "Edit direction": ((direction, target, notes.DIRECTION),),
        },
        {"Invert": ((inversion, reconstructed, notes.INVERT),)},
        {"Edit": ((sampler, edited, notes.EDIT),)},
        {"Result": ((*saved, compared),)},
    )
    return g


def distilled_edit(file: str, folder: str, examples: tuple[str, ...], note: Note) -> Graph:
    """Every picture of a folder, edited by a network that knows one edit."""
    g = Edit(note)
    paths = tuple(f"{folder}/{name}" for name in examples)
    frames = g.add("LoadImageDataSetFromFolder", "frames", example=paths, folder=folder)
    loaded = g.add("Pix2PixZeroLoadDistilledEdit", file=file)
    applied = g.add("Pix2PixZeroApplyDistilledEdit", distilled=loaded["distilled"], image=frames["images"])
    compared = g.add("Pix2PixZeroCompare", source=frames["images"], edited=applied["edited"])
    saved = g.save(applied["edited"], "edited"), g.save(compared["comparison"], "side by side")
    g.stacks = (
        {"Frames": ((frames, notes.FRAMES),)},
        {"Edit": ((loaded, applied, notes.DISTILLED),)},
        {"Result": ((*saved, compared),)},
    )
    return g


def generated_edit(model: Model, prompt: str, note: Note) -> Graph:
    """A picture drawn from a prompt, and then edited."""
    g = Edit(note)
    checkpoint = g.load(model)
    source, empty = g.text_pair(prompt, "prompt: the source text")
    size = g.add("EmptyLatentImage", width=model.side, height=model.side)
    drawn = g.add(
        "KSampler",
        "draw the picture",
        model=g.model,
        positive=source["CONDITIONING"],
        negative=empty["CONDITIONING"],
        latent_image=size["LATENT"],
        steps=30,
        cfg=7.5,
    )
    direction = g.direction(model.edit)
    target = g.turn(source["CONDITIONING"], direction)
    inversion = g.invert(drawn["LATENT"], source["CONDITIONING"])
    sampler = g.sample(inversion, source["CONDITIONING"], target["target"])
    picture, reconstructed, edited = (
        g.decode(latent) for latent in (drawn["LATENT"], inversion["reconstruction"], sampler["edited"])
    )
    compared = g.compare(picture["IMAGE"], reconstructed, edited)
    saved = (
        g.save(picture["IMAGE"], "source"),
        g.save(edited["IMAGE"], "edited"),
        g.save(compared["comparison"], "side by side"),
    )
    g.stacks = (
        {"Generate": ((checkpoint, source, empty, size, notes.GENERATE), (drawn, picture))},
        {"Edit direction": ((direction, target, notes.DIRECTION),)},
        {"Invert": ((inversion, reconstructed, notes.INVERT),)},
        {"Edit": ((sampler, edited, notes.EDIT),)},
        {"Result": ((saved[0], saved[1], compared), (saved[2],))},
    )
    return g


def edit_node(model: Model, note: Note) -> Graph:
    """A whole edit as one node: picture and checkpoint in, edited picture out."""
    sockets = {"image": "IMAGE", "model": "MODEL", "clip": "CLIP", "vae": "VAE"}
    widgets = {
        "edit": "COMBO",
        "strength": "FLOAT",
        "guidance": "FLOAT",
        "cfg": "FLOAT",
        "steps": "INT",
        "fit": "COMBO",
        "caption_model": "COMBO",
    }
    g = Edit(note, {**sockets, **widgets}, {"edit": model.edit, "caption_model": model.blip})
    g.help = notes.BLUEPRINT_HELP
    g.model, g.clip, g.vae = g.input("model"), g.input("clip"), g.input("vae")
    fitted = g.add("Pix2PixZeroFitPicture", image=g.input("image"), model=g.model, fit=g.input("fit"))
    picture = fitted["picture"]
    encoded = g.encode(picture)
    caption = g.caption(picture, g.input("caption_model"))
    source, negative = g.text_pair(caption["caption"])
    direction = g.direction(g.input("edit"))
    text = source["CONDITIONING"]
    target = g.turn(text, direction, strength=g.input("strength"), caption=caption["caption"])
    inversion = g.invert(encoded["LATENT"], text, steps=g.input("steps"))
    sampler = g.sample(inversion, text, target["target"], cfg=g.input("cfg"), guidance=g.input("guidance"))
    edited, reconstructed = g.decode(sampler["edited"]), g.decode(inversion["reconstruction"])
    judged = g.add(
        "Pix2PixZeroJudgeEdit",
        image=edited["IMAGE"],
        caption=caption["caption"],
        model=g.input("caption_model"),
        direction=direction["direction"],
        original=picture,
        strength=g.input("strength"),
    )
    joined, joins = direction["warning"], list[Node]()
    for one in (target, inversion, sampler, judged):
        joins.append(g.add("StringConcatenate", string_a=joined, string_b=one["warning"], delimiter="\n"))
        joined = joins[-1]["STRING"]
    warning = g.add("StringTrim", "warning", string=joined)
    compared = g.add("Pix2PixZeroCompare", source=picture, edited=edited["IMAGE"])
    g.outputs = {
        "edited": edited["IMAGE"],
        "reconstruction": reconstructed["IMAGE"],
        "caption": caption["caption"],
        "before_and_after": compared["comparison"],
        "warning": warning["STRING"],
    }
    g.stacks = (
        {"Picture": ((fitted, encoded),), "Caption": ((caption, source, negative, notes.CAPTION),)},
        {"Edit direction": ((direction, target, notes.DIRECTION),)},
        {"Invert": ((inversion, reconstructed, notes.INVERT),)},
        {"Edit": ((sampler, edited, notes.EDIT),)},
        {"Judge": ((judged, compared), (*joins, warning))},
    )
    return g


def one_node(model: Model, note: Note) -> Graph:
    """A picture in, the whole edit as one node, and before and after side by side."""
    g = Edit(note)
    g.zoom = 0.75
    checkpoint = g.load(model)
    loaded = g.add("LoadImage", "picture", example="cat.png", image="cat.png")
    sockets = {"image": loaded["IMAGE"], "model": g.model, "clip": g.clip, "vae": g.vae}
    edit = g.add_graph(EDIT_NODE, BLUEPRINTS[EDIT_NODE], "Edit a Picture", room=ROOM_TO_SAY, **sockets)
    together = g.save(edit["before_and_after"], "before and after", width=440, room=260)
    edited = g.save(edit["edited"], "edited", width=440, room=240)
    g.stacks = ({"Picture": ((checkpoint, loaded),)}, {"Edit": ((edit,),)}, {"Result": ((together, edited),)})
    return g


EDIT_NODE = "Edit a Picture (pix2pix-zero)"

BLUEPRINTS: Mapping[str, Graph] = {EDIT_NODE: edit_node(TINY_ZOO, notes.introduction(notes.BLUEPRINT))}
"""Name of the node -> what is inside it."""

GRAPHS: Mapping[str, Graph] = {
    "edit_a_picture": one_node(TINY_ZOO, notes.introduction(notes.ONE_NODE, 520, 280)),
    "tiny_zoo_edit": one_edit(TINY_ZOO, notes.introduction(notes.FIRST_STEPS)),
    "tiny_zoo_two_edits": two_edits(
        TINY_ZOO, ("tiny_zoo/cat2dog", "tiny_zoo/cat2glasses"), notes.introduction(notes.TWO_EDITS)
    ),
    "tiny_zoo_strengths": strength_sweep(TINY_ZOO, notes.introduction(notes.SWEEP)),
    "tiny_zoo_guider": guider_edit(TINY_ZOO, notes.introduction(notes.WITH_GUIDER)),
    "tiny_zoo_attention": attention_maps(TINY_ZOO, notes.introduction(notes.LOOKING)),
    "tiny_zoo_folder": folder_edit(
        TINY_ZOO, "tiny_zoo_cats", ("cat.png", "glasses.png", "oil.png"), notes.introduction(notes.WHOLE_FOLDER)
    ),
    "tiny_zoo_distilled": distilled_edit(
        "tiny_zoo/cat2dog.safetensors",
        "tiny_zoo_frames",
        ("cat.png", "glasses.png", "oil.png"),
        notes.introduction(notes.ONE_PASS),
    ),
    "flow_tiny_zoo_edit": flow_edit(TINY_ZOO_FLOW, notes.beside(notes.FLOW)),
    "sd15_edit": one_edit(SD15, notes.introduction(notes.SD15)),
    "sd15_generated": generated_edit(
        SD15, "a photo of a cat sitting on a bench in a park", notes.introduction(notes.GENERATED)
    ),
    "sdxl_edit": one_edit(SDXL, notes.introduction(notes.SDXL, height=540)),
    "sd35_edit": flow_edit(SD35, notes.beside(notes.SD35), steps=28, **LARGE),
    "flux_edit": flow_edit(FLUX, notes.beside(notes.FLUX), steps=28, cfg=1.0, checkpointing="always"),
    "anima_edit": flow_edit(ANIMA, notes.beside(notes.ANIMA), steps=28, swap=("cat", "dog"), **LARGE),
    "z_image_edit": flow_edit(Z_IMAGE, notes.beside(notes.Z_IMAGE), steps=28, **LARGE),
    "qwen_image_base_edit": flow_edit(QWEN_IMAGE, notes.beside(notes.QWEN_IMAGE), steps=28, **LARGE),
}
"""Name of the file -> graph, in the order of the template browser."""
