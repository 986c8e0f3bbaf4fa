"""Gradients through operations that write in place, as patches of other nodes do."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


def overwritten(x: Tensor) -> Tensor:
    x.zero_()
    return x


def overwritten_in_part(x: Tensor) -> Tensor:
    """Through a view that begins elsewhere in the same memory."""
    x[1:] = 0
    return x


def overwritten_by_name(x: Tensor) -> Tensor:
    with torch.no_grad():
        torch.mul(x, 0, out=x)
    return x


def overwritten_in_a_list(x: Tensor) -> Tensor:
    with torch.no_grad():
        torch._foreach_zero_([x])
    return x


@pytest.mark.parametrize("write", [overwritten, overwritten_in_part, overwritten_by_name, overwritten_in_a_list])
def test_what_is_saved_outlives_what_is_written(pack: Any, write: Callable[[Tensor], Tensor]):
    x = torch.arange(1.0, 5.0).requires_grad_()
    with pack.nodes.gradient.differentiable():
        activation = x * 1
        loss = activation.square().sum()
        write(activation)
        (gradient,) = torch.autograd.grad(loss, x)
    assert torch.equal(gradient, 2 * x)


def test_memory_that_is_used_again_is_not_mistaken(pack: Any):
    """Overwritten and gone, an activation leaves its address to the next one, of another shape perhaps."""
    x = torch.ones(1024, requires_grad=True)
    factors = range(1, 40)
    with pack.nodes.gradient.differentiable():
        loss = torch.zeros(())
        for factor in factors:
            activation = x.repeat(1 + factor % 3) * factor
            loss = loss + activation.square().sum()
            overwritten(activation)
            del activation
        (gradient,) = torch.autograd.grad(loss, x)
    expected = sum(2 * factor**2 * (1 + factor % 3) for factor in factors)
    torch.testing.assert_close(gradient, torch.full_like(gradient, expected))


def test_nothing_stays_in_memory(pack: Any):
    """Also not what was computed after the loss and saved its own result: no backward pass frees that."""
    x = torch.ones(4, requires_grad=True)
    with pack.nodes.gradient.differentiable():
        activation = (x * 1).exp()
        beyond = activation.exp()
        torch.autograd.grad(activation.sum(), x)
    remains = [weakref.ref(t) for t in (activation, beyond)]
    del activation, beyond
    assert not any(reference() is not None for reference in remains)


def test_nothing_is_copied_where_nothing_is_written(pack: Any):
    x = torch.ones(4, requires_grad=True)
    with pack.nodes.gradient.differentiable():
        activation = x * 1
        squared = activation.square()
        assert squared.grad_fn._saved_self.data_ptr() == activation.data_ptr()


def test_a_quantised_weight_is_a_constant(pack: Any):
    """Of a checkpoint in mixed precision, where the GPU computes in fp8: ComfyUI leaves such weights as they are."""
    quantised = pytest.importorskip("comfy.quant_ops").QuantizedTensor
    x = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.inference_mode():
        weight = quantised.from_float(torch.eye(16)[:8], "TensorCoreFP8Layout")
    with torch.inference_mode(False), pack.nodes.gradient.differentiable():
        (gradient,) = torch.autograd.grad(torch.nn.functional.linear(x, weight).sum(), x)
    torch.testing.assert_close(gradient, torch.ones(2, 8) @ torch.eye(16)[:8])
