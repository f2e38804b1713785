"""Tiny sentence-transformers models, made on the spot: random weights, small vocabularies, any dimension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mos_pipeline.stages.model_cache import CachedModel, make_cached
from mos_pipeline.stages.models import find_model
from mos_pipeline.stages.static_tier import MOST_PIECES, static_name
from mos_pipeline.store.models import TABLE, TOKENIZER, digest_of
from tests.support import WORDS

__all__ = ["make_bert", "make_distilled", "make_static"]

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", ".", ",", "?", "user", "assistant", "query", "passage"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def vocabulary() -> list[str]:
    return [*PIECES, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]


def tokenizer() -> dict[str, Any]:
    """Return what tokenizer.json holds: words and word pieces, lower case, [CLS] before and [SEP] behind."""
    pieces = {piece: number for number, piece in enumerate(vocabulary())}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": ["[SEP]", pieces["[SEP]"]],
            "cls": ["[CLS]", pieces["[CLS]"]],
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": pieces,
        },
    }


def make_bert(
    folder: Path,
    *,
    hidden: int = 32,
    dense: int = 0,
    longest: int = 64,
    seed: int = 0,
    prompts: Mapping[str, str] | None = None,
    include_prompt: bool = True,
    pooling: str = "mean",
) -> Path:
    """Save a BERT of one layer with its pooling, and return its folder.

    Args:
        folder: where.
        hidden: its width, and so the dimension, a multiple of 2.
        dense: the dimension that a layer behind the pooling makes of it; 0 for none.
        longest: how many word pieces it reads.
        seed: of its weights.
        prompts: those it brings, by name.
        include_prompt: whether the mean is over the prompt's word pieces too.
        pooling: ``mean`` of the word pieces' vectors, or ``cls``, that of the first one.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    raw = folder.with_name(f"{folder.name}-raw")
    raw.mkdir(parents=True)
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=2 * longest,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(raw)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tokenizer())),
        model_max_length=longest,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(raw)
    modules = [Transformer(str(raw)), Pooling(hidden, pooling, include_prompt=include_prompt)]
    modules[0].max_seq_length = longest
    if dense:
        modules.append(Dense(hidden, dense))
    SentenceTransformer(modules=modules, device="cpu", prompts=dict(prompts or {})).save(str(folder))
    return folder


def make_static(folder: Path, *, dimension: int = 24, seed: int = 0) -> Path:
    """Save a model that adds up its words' vectors, without a network, and return its folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    torch.manual_seed(seed)
    words = Tokenizer.from_str(json.dumps({**tokenizer(), "post_processor": None}))
    static = StaticEmbedding(words, embedding_weights=torch.randn(len(vocabulary()), dimension))
    SentenceTransformer(modules=[static], device="cpu").save(str(folder))
    return folder


def make_distilled(cache: Path, base: Path, *, dimension: int = 24, seed: int = 0) -> CachedModel:
    """Put into ``cache`` what would be distilled from the model in ``base``: random rows; no library of models is used.

    ``base`` is made, of a few bytes, where it is not there.
    """
    if not base.exists():
        base.mkdir(parents=True)
        (base / TABLE).write_bytes(base.name.encode())
    files = find_model(str(base))

    def make(folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        rows = np.random.default_rng(seed).normal(size=(len(vocabulary()), dimension)).astype(np.float16)
        save_file({"embedding.weight": rows}, folder / TABLE)
        truncation = {"direction": "Right", "max_length": MOST_PIECES, "strategy": "LongestFirst", "stride": 0}
        (folder / TOKENIZER).write_text(json.dumps({**tokenizer(), "truncation": truncation}), "utf-8")
        told = {"model": files.name, "distilled_from": files.digest, "dimension": dimension}
        return {**told, "digest": digest_of(folder)}

    return make_cached(cache, static_name(files), make)
