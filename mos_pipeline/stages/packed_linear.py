"""Linear layers whose weights are packed once, for oneDNN, instead of at every call. Imports torch late, in the child.

A good part of a batch's time goes into bringing the weights into the order that the processor's matrix kernels want;
packed ahead, that is done once (``python -m perf embed`` tells the gain). The arithmetic stays that of float32. The
operators are those that torch's own compiler puts in for frozen weights. They are no public interface, so the model is
tried with them before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Forward = Callable[[torch.Tensor], torch.Tensor]
    _Packed = tuple[torch.nn.Linear, Forward, torch.Tensor]

__all__ = ["pack_linears"]

logger = logging.getLogger(__name__)


def pack_linears(model: torch.nn.Module, works: Callable[[], bool]) -> int:
    """Have the float32 linear layers of ``model`` compute with packed weights, where this torch can.

    For inference only: the weights themselves are let go. Then ``works()`` tells whether the model still computes what
    it did; where it doesn't, or raises (a model may read its layers' weights by itself), all is undone.

    Returns:
        how many layers were changed.
    """
    import torch

    with torch.inference_mode():
        packed = _packed(model)
        for layer, forward, _ in packed:
            layer.forward = forward  # type: ignore[method-assign, assignment]
            layer.weight.data = torch.empty(0)
        try:
            right = not packed or works()
        except Exception as error:  # noqa: BLE001  (a model of another kind; it fails in ways of its own)
            logger.info("the model does not work with packed layers (%r)", error)
            right = False
        if not right:
            logger.warning("linear layers stay as they are: with packed ones the model computes something else")
            for layer, _, weight in packed:
                del layer.forward  # the class's own is found again
                layer.weight.data = weight
            return 0
    return len(packed)


def _packed(model: torch.nn.Module) -> list[_Packed]:
    """Return each layer that can be changed, with what computes the same and its weight."""
    import torch

    found: list[_Packed] = []
    for layer in model.modules():
        if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32:
            try:
                forward = _forward(layer)
            except (AttributeError, RuntimeError) as error:  # no such operator, or not for this processor
                logger.info("linear layers stay as they are: this torch can't pack them (%s)", error)
                return []
            found.append((layer, forward, layer.weight.data))
    return found


def _forward(layer: torch.nn.Linear) -> Forward:
    import torch

    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach()), layer.bias

    def forward(features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")
        return found

    return forward
