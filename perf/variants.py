"""The ways of embedding that are measured beside each other, with what each is to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mos_pipeline import config
from perf.options import Options
from perf.result import Aim, at_least

__all__ = ["FP32", "STATIC", "VARIANTS", "Variant", "is_plain", "plain", "variant_of", "wanted"]

CHOICES = ("embedding__backend", "embedding__precision", "embedding__tier")
PLAIN_BACKEND = config.Embedding().backend


@dataclass(frozen=True, slots=True)
class Variant:
    """A way of embedding.

    Attributes:
        settings: of the pipeline, by their keywords.
        over_plain: the least multiple of plain fp32 encoding that ingestion is to reach.
        raw_aim: the least share of the backend's own raw rate; None where that is not what bounds it.
        over_mem0: the least multiple of mem0's pages a second.
        pages: that it takes to fill the pipeline.
    """

    name: str
    settings: Mapping[str, Any]
    over_plain: float
    raw_aim: Aim | None
    over_mem0: float
    pages: int


FP32 = Variant("fp32", {}, 0.95, at_least(0.95), 3.5, 2_000)
INT8 = Variant(
    "int8", {"embedding__backend": "openvino", "embedding__precision": "int8"}, 1.9, at_least(0.85), 7.0, 3_000
)
STATIC = Variant("static", {"embedding__tier": "static"}, 25.0, None, 90.0, 30_000)
VARIANTS = FP32, INT8, STATIC


def variant_of(settings: config.Embedding) -> Variant:
    """Return what these settings are measured as."""
    if settings.tier == "static":
        return STATIC
    return INT8 if settings.precision == "int8" else FP32


def is_plain(settings: config.Embedding) -> bool:
    """Return whether these are computed as plain encoding is: by torch, in fp32, with the whole model."""
    return settings == plain(settings)


def plain(settings: config.Embedding) -> config.Embedding:
    """Return the settings of plain encoding by the same model."""
    return replace(settings, backend=PLAIN_BACKEND, precision="fp32", tier="full")


def wanted(options: Options) -> list[Variant]:
    """Return the variants to be measured: the one of which the command line chooses something, or all of them."""
    if any(name in options.settings for name in CHOICES):
        chosen = config.load_config(overrides=options.settings).embedding
        return [replace(variant_of(chosen), settings={})]
    return list(VARIANTS)
