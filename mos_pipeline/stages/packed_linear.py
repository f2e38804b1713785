"""Linear layers whose weights are packed once, for oneDNN, instead of at every call. Imports torch: for a child only.

A batch spends most of its time bringing the weights into the order that the processor's matrix kernels want. Packed
ahead, a question takes half the time and a full batch three quarters of it; the arithmetic stays that of float32. The
operators are those that torch's own compiler puts in for frozen weights. They are no public interface, so every layer
is tried before it is replaced.
"""

from __future__ import annotations

import logging

import torch

__all__ = ["pack_linears"]

logger = logging.getLogger(__name__)

TRIAL_ROWS = 5
CLOSE = 1e-4  # relative to the largest output; other sums in another order differ by some 1e-6


class _PackedLinear(torch.nn.Module):
    """Stands in for a ``torch.nn.Linear`` of float32, for inference."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.register_buffer("packed", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach()))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(features, self.packed, self.bias, "none", [], "")
        return found


def pack_linears(model: torch.nn.Module) -> int:
    """Replace the float32 linear layers of ``model``, in place, where this torch can; return how many were."""
    replaced = 0
    with torch.inference_mode():
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is torch.nn.Linear and child.weight.dtype == torch.float32:
                    packed = _packed(child)
                    if packed is None:
                        return replaced
                    setattr(parent, name, packed)
                    replaced += 1
    return replaced


def _packed(linear: torch.nn.Linear) -> _PackedLinear | None:
    """Return the stand-in, or None where there is none that computes the same."""
    trial = torch.linspace(-1.0, 1.0, TRIAL_ROWS * linear.in_features).reshape(1, TRIAL_ROWS, -1)
    try:
        packed = _PackedLinear(linear)
        expected, found = linear(trial), packed(trial)
    except (AttributeError, RuntimeError) as error:  # no such operator, or not for this processor
        logger.info("linear layers stay as they are: this torch can't pack them (%s)", error)
        return None
    if (found - expected).abs().max() > CLOSE * expected.abs().max():
        logger.warning("linear layers stay as they are: packed ones compute something else with this torch")
        return None
    return packed
