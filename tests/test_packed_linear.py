from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mos_pipeline.stages import packed_linear

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def model() -> Any:
    import torch

    class Kept(torch.nn.Linear):
        """A layer that is linear and more, for all we know."""

    torch.manual_seed(7)
    inner = torch.nn.Sequential(torch.nn.Linear(48, 96), torch.nn.GELU(), torch.nn.Linear(96, 24, bias=False))
    return torch.nn.Sequential(inner, Kept(24, 8), torch.nn.Linear(8, 4)).eval()


@pytest.mark.parametrize("shape", [(1, 1, 48), (1, 10, 48), (7, 33, 48), (5, 48)])
def test_packed_layers_compute_the_same(model: Any, shape: tuple[int, ...]) -> None:
    import torch

    features = torch.randn(shape)
    with torch.inference_mode():
        expected = model(features)
        assert packed_linear.pack_linears(model) == 3
        found = model(features)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
    assert [layer.weight.numel() for layer in (model[0][0], model[0][2], model[1], model[2])] == [0, 0, 24 * 8, 0]


def test_layers_of_another_precision_stay(model: Any) -> None:
    import torch

    assert packed_linear.pack_linears(model.to(torch.bfloat16)) == 0


def test_layers_stay_where_torch_has_no_such_operator(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(layer: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed_linear, "_forward", missing)
    with caplog.at_level("INFO", "mos_pipeline"):
        assert packed_linear.pack_linears(model) == 0
    assert "no such operator" in caplog.text
    assert model[0][0].weight.numel() == 48 * 96


def test_layers_stay_where_packed_ones_compute_something_else(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = packed_linear._forward

    def wrong(layer: Any) -> Callable[[Any], Any]:
        forward = right(layer)
        return lambda features: forward(features) * 1.01

    monkeypatch.setattr(packed_linear, "_forward", wrong)
    assert packed_linear.pack_linears(model) == 0
    assert "something else" in caplog.text
    assert model[0][0].weight.numel() == 48 * 96
