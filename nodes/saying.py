"""What a node says on its face: how it went, and warnings in a colour of their own; `web/saying.js` draws it."""

from __future__ import annotations

from typing import Any

EVENT = "pix2pix-zero.saying"
"""Message to the browser, for what is said while a node runs: prompt_id, node, note."""


def said(note: str = "", warning: str = "") -> dict[str, list[str]]:
    """What goes into the `ui` of a node's output, so that the node in the browser says it.

    ComfyUI keeps it: a cached run says nothing new, and the history has it for other clients.

    Args:
        note: how it went.
        warning: what is likely to be wrong with the result; empty if nothing is.
    """
    return {
        "text": ["\n".join(filter(None, [note, warning]))],
        "pix2pix_zero_note": [note],
        "pix2pix_zero_warning": [warning],
    }


def say_meanwhile(node: Any, note: str) -> None:
    """Show a line on a node of the browser while it runs.

    Args:
        node: a node class, with `unique_id` among its hidden inputs.
        note: replaces what the node has said before.
    """
    if node.hidden is not None and node.hidden.unique_id is not None:
        from server import PromptServer  # not at the top: it is there only while the server runs

        server = PromptServer.instance
        if server.client_id is None:
            return  # a script's run: the message would go to every browser
        run = getattr(server, "last_prompt_id", None)  # ComfyUI sets it when a run begins
        message = {"prompt_id": run, "node": node.hidden.unique_id, "note": note}
        server.send_sync(EVENT, message, server.client_id)
