"""A workflow's nodes are found by their class."""

from __future__ import annotations

import json

import pytest

from launcher.messages import Failure
from launcher.workflow import Workflow, adapt, find_node

WORKFLOW: Workflow = {
    "7": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}, "_meta": {"title": "picture"}},
    "8": {"class_type": "Pix2PixZeroEditDirection", "inputs": {"edit": "cat2dog"}, "_meta": {"title": "direction"}},
}


def test_a_workflow_is_adapted_by_class_and_its_template_kept() -> None:
    before = json.dumps(WORKFLOW)
    adapted = adapt(WORKFLOW, "dog.png", "dog2cat")
    assert adapted["7"]["inputs"]["image"] == "dog.png"
    assert adapted["8"]["inputs"]["edit"] == "dog2cat"
    assert json.dumps(WORKFLOW) == before


@pytest.mark.parametrize("count", [0, 2])
def test_a_class_that_is_not_there_once_is_refused(count: int) -> None:
    workflow = {str(index): {"class_type": "LoadImage", "inputs": {}} for index in range(count)}
    with pytest.raises(Failure, match=f"has {count} LoadImage nodes"):
        find_node(workflow, "LoadImage")
