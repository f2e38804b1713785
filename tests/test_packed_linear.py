from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mos_pipeline.stages import packed_linear
from mos_pipeline.stages.packed_linear import pack_linears

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def model() -> Any:
    import torch

    class Kept(torch.nn.Linear):
        """A layer that is linear and more, for all we know."""

    torch.manual_seed(7)
    inner = torch.nn.Sequential(torch.nn.Linear(48, 96), torch.nn.GELU(), torch.nn.Linear(96, 24, bias=False))
    return torch.nn.Sequential(inner, Kept(24, 8), torch.nn.Linear(8, 4)).eval()


def weights(model: Any) -> list[int]:
    return [layer.weight.numel() for layer in (model[0][0], model[0][2], model[1], model[2])]


WHOLE = [48 * 96, 96 * 24, 24 * 8, 8 * 4]


@pytest.mark.parametrize("shape", [(1, 1, 48), (1, 10, 48), (7, 33, 48), (5, 48)])
def test_packed_layers_compute_the_same(model: Any, shape: tuple[int, ...]) -> None:
    import torch

    features = torch.randn(shape)
    with torch.inference_mode():
        expected = model(features)
        assert pack_linears(model, lambda: True) == 3
        found = model(features)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
    assert weights(model) == [0, 0, 24 * 8, 0]


def test_layers_of_another_precision_stay(model: Any) -> None:
    import torch

    assert pack_linears(model.to(torch.bfloat16), lambda: True) == 0


def test_layers_stay_where_torch_has_no_such_operator(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(layer: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed_linear, "_forward", missing)
    with caplog.at_level("INFO", "mos_pipeline"):
        assert pack_linears(model, lambda: True) == 0
    assert "no such operator" in caplog.text
    assert weights(model) == WHOLE


def raising() -> bool:
    raise RuntimeError("size mismatch")


@pytest.mark.parametrize("works", [lambda: False, raising])
def test_all_is_undone_where_the_model_does_not_work_with_it(
    model: Any, works: Callable[[], bool], caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    features = torch.randn(3, 48)
    with torch.inference_mode():
        expected = model(features)
        assert pack_linears(model, works) == 0
        assert torch.equal(model(features), expected)
    assert "something else" in caplog.text
    assert weights(model) == WHOLE


def test_layers_with_one_weight_between_them_are_packed_or_left() -> None:
    import torch

    first, second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    second.weight = first.weight
    model, features = torch.nn.Sequential(first, second).eval(), torch.randn(3, 8)
    with torch.inference_mode():
        expected = model(features)
        assert pack_linears(model, lambda: True) == 2
        assert (model(features) - expected).abs().max() < 1e-5


def test_a_model_that_reads_its_layers_weights_stays_as_it_is() -> None:
    import torch

    model = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    features = torch.randn(1, 4, 16)
    with torch.inference_mode():
        expected = model(features)
        pack_linears(model, lambda: bool((model(features) - expected).abs().max() < 1e-4))
        assert (model(features) - expected).abs().max() < 1e-4
