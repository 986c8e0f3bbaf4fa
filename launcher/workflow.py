"""Workflows in API format: their nodes by class, and by name in messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .messages import Failure

Workflow = dict[str, dict[str, Any]]  # API format: node id -> class_type, inputs, _meta


def find_node(workflow: Workflow, class_type: str) -> str:
    """The id of the only node of a class.

    Raises:
        Failure: there is none, or more than one.
    """
    found = [node_id for node_id, node in workflow.items() if node["class_type"] == class_type]
    if len(found) != 1:
        raise Failure(f"the workflow has {len(found)} {class_type} nodes and should have one")
    return found[0]


def node_inputs(workflow: Workflow, class_type: str) -> dict[str, Any]:
    """The inputs of the only node of a class."""
    return workflow[find_node(workflow, class_type)]["inputs"]


def adapt(template: Workflow, image: str, edit: str) -> Workflow:
    """Copy a workflow with another picture and another edit."""
    workflow: Workflow = json.loads(json.dumps(template))
    node_inputs(workflow, "LoadImage")["image"] = image
    node_inputs(workflow, "Pix2PixZeroEditDirection")["edit"] = edit
    return workflow


def describe_node(workflow: Workflow, node_id: str) -> str:
    """A node's title and class, for messages."""
    node = workflow[node_id]
    return f"node {node_id} {node.get('_meta', {}).get('title', '')!r} ({node['class_type']})"


def describe_rejection(workflow: Workflow, answer: Mapping[str, Any]) -> Iterator[str]:
    """One line an error in ComfyUI's answer to /prompt."""
    if answer.get("error"):
        yield f"{answer['error']['message']} {answer['error']['details']}".strip()
    for node_id, rejected in answer.get("node_errors", {}).items():
        for error in rejected["errors"]:
            yield f"{describe_node(workflow, node_id)}: {error['message']}: {error['details']}"
