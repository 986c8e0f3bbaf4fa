"""Help pages in the language of whoever asks: front ends look for DOCS/NODE/LANGUAGE.md before DOCS/NODE.md."""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web

PACK_FOLDER = Path(__file__).parents[1]
DOCS = PACK_FOLDER / "web" / "docs"


def serve_help_pages() -> None:
    """Answer for every language with its page, or with the English one: a miss is an error in the browser's console."""
    server = sys.modules.get("server")  # ComfyUI's; it is there only while that runs
    if server is not None:
        server.PromptServer.instance.routes.get(f"/extensions/{PACK_FOLDER.name}/docs/{{node}}/{{language}}.md")(_page)


async def _page(request: web.Request) -> web.FileResponse:
    pages = {page.relative_to(DOCS).as_posix(): page for page in DOCS.rglob("*.md")}
    node, language = request.match_info["node"], request.match_info["language"]
    page = pages.get(f"{node}/{language}.md") or pages.get(f"{node}.md")
    if page is None:
        raise web.HTTPNotFound
    return web.FileResponse(page, headers={"Content-Type": "text/markdown; charset=utf-8"})
