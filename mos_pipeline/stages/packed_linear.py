"""Linear layers whose weights are packed once, for oneDNN, instead of at every call. Imports torch late, in the child.

A batch spends most of its time bringing the weights into the order that the processor's matrix kernels want. Packed
ahead, a question takes half the time and a full batch three quarters of it; the arithmetic stays that of float32. The
operators are those that torch's own compiler puts in for frozen weights. They are no public interface, so every layer
is tried before it is changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["pack_linears"]

logger = logging.getLogger(__name__)

TRIAL_ROWS = 5
CLOSE = 1e-4  # relative to the largest output; sums in another order differ by some 1e-6


def pack_linears(model: torch.nn.Module) -> int:
    """Have the float32 linear layers of ``model`` compute with packed weights, where this torch can.

    For inference only: the weights themselves are let go. Returns how many layers were changed.
    """
    import torch

    changed = 0
    with torch.inference_mode():
        for layer in model.modules():
            if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32:
                forward = _packed(layer)
                if forward is None:
                    break
                layer.forward = forward  # type: ignore[method-assign, assignment]
                layer.weight.data = torch.empty(0)
                changed += 1
    return changed


def _packed(layer: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what computes the same as ``layer``, or None where there is none."""
    import torch

    trial = torch.linspace(-1.0, 1.0, TRIAL_ROWS * layer.in_features).reshape(1, TRIAL_ROWS, -1)
    try:
        forward = _forward(layer)
        expected, found = layer(trial), forward(trial)
    except (AttributeError, RuntimeError) as error:  # no such operator, or not for this processor
        logger.info("linear layers stay as they are: this torch can't pack them (%s)", error)
        return None
    if (found - expected).abs().max() > CLOSE * expected.abs().max():
        logger.warning("linear layers stay as they are: packed ones compute something else with this torch")
        return None
    return forward


def _forward(layer: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach()), layer.bias

    def forward(features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")
        return found

    return forward
