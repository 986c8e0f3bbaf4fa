"""pix2pix-zero for ComfyUI: the entry point of the node pack.

ComfyUI imports this file and calls `comfy_entrypoint`. Nothing of ComfyUI is imported before that, so that the
repository can also be imported, tested and installed without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import Pix2PixZeroExtension

WEB_DIRECTORY = "./web"
"""What ComfyUI serves to the browser: help pages, example pictures and scripts."""


async def comfy_entrypoint() -> Pix2PixZeroExtension:
    """Make Tiny Zoo known to the stock loaders, serve the help pages, and return the extension that lists the nodes."""
    from .nodes import Pix2PixZeroExtension
    from .nodes.help import serve_help_pages
    from .tiny_zoo.comfy_model import register

    register()
    serve_help_pages()
    return Pix2PixZeroExtension()
