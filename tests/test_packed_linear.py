from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.filterwarnings("default")]

torch = pytest.importorskip("torch")

from mos_pipeline.stages import packed_linear  # noqa: E402 (imports torch)


class Kept(torch.nn.Linear):  # type: ignore[misc, name-defined]
    """A layer that is linear and more, for all we know."""


def model() -> Any:
    torch.manual_seed(7)
    inner = torch.nn.Sequential(torch.nn.Linear(48, 96), torch.nn.GELU(), torch.nn.Linear(96, 24, bias=False))
    return torch.nn.Sequential(inner, Kept(24, 8), torch.nn.Linear(8, 4)).eval()


@pytest.mark.parametrize("shape", [(1, 1, 48), (1, 10, 48), (7, 33, 48), (5, 48)])
def test_packed_layers_compute_the_same(shape: tuple[int, ...]) -> None:
    whole, features = model(), torch.randn(shape)
    with torch.inference_mode():
        expected = whole(features)
        assert packed_linear.pack_linears(whole) == 3
        found = whole(features)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
    assert type(whole[0][0]) is not torch.nn.Linear
    assert type(whole[1]) is Kept


def test_layers_of_another_precision_stay() -> None:
    whole = model().to(torch.bfloat16)
    assert packed_linear.pack_linears(whole) == 0


def test_layers_stay_where_torch_has_no_such_operator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(linear: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed_linear, "_PackedLinear", missing)
    whole = model()
    with caplog.at_level("INFO", "mos_pipeline"):
        assert packed_linear.pack_linears(whole) == 0
    assert "no such operator" in caplog.text
    assert type(whole[0][0]) is torch.nn.Linear


def test_layers_stay_where_packed_ones_compute_something_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = packed_linear._PackedLinear.forward
    monkeypatch.setattr(packed_linear._PackedLinear, "forward", lambda self, features: right(self, features) * 1.01)
    whole = model()
    assert packed_linear.pack_linears(whole) == 0
    assert "something else" in caplog.text
    assert type(whole[0][0]) is torch.nn.Linear
