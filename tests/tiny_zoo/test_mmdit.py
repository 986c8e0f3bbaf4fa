"""The flow transformer: where its heads look before they are trained, and positions in tables of any size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny_zoo import mmdit
from tiny_zoo.mmdit import NEIGHBOURS, MMDiT

SIDE = 8  # patches


@pytest.mark.parametrize(("block", "head"), [(block, head) for block in NEIGHBOURS for head in range(3)])
def test_an_untrained_head_looks_at_its_neighbour(block: int, head: int) -> None:
    model = MMDiT()
    tokens = F.layer_norm(model._positions(SIDE, SIDE), [mmdit.HEAD_WIDTH * mmdit.FLOW_DEPTH])
    alone = model.joint_blocks[block].x_block.attn2  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(alone, nn.ModuleDict)
    q, k, _ = (t[0, :, head] for t in mmdit._project(alone, tokens))
    seen = (q @ k.mT).argmax(1)
    down, right = NEIGHBOURS[block][head]
    rows, columns = torch.arange(SIDE * SIDE) // SIDE, torch.arange(SIDE * SIDE) % SIDE
    inside = (rows + down).clamp(0, SIDE - 1).eq(rows + down) & (columns + right).clamp(0, SIDE - 1).eq(columns + right)
    assert torch.equal(seen[inside], ((rows + down) * SIDE + columns + right)[inside])


def test_the_middle_has_the_same_positions_in_tables_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    small = MMDiT()._positions(SIDE, SIDE)
    monkeypatch.setattr(mmdit, "POSITIONS", 32)
    assert torch.equal(MMDiT()._positions(SIDE, SIDE), small)
