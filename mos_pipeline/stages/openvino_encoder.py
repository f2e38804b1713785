"""A transformer, its pooling and scaling as one OpenVINO graph, without torch. Imports openvino late, in the child.

The graph that sentence-transformers exports ends at the vectors of word pieces. Here the mean over them, or the first,
and the scaling to length 1 are put behind it, so that a batch comes back as one small array. A batch is computed in
parts, as many at a time as there are streams: each stream has a thread of its own, which need not wait for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mos_pipeline.stages.backend import Prepared
from mos_pipeline.stages.shapes import Part, filled_length, parts_of

__all__ = ["EXACT", "GRAPH", "TOKENIZER", "OpenVinoEncoder"]

# Where the processor has bfloat16, OpenVINO would take that for float32 by itself: other vectors on other machines.
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
GRAPH = Path("openvino", "openvino_model.xml")
TOKENIZER = "tokenizer.json"


class OpenVinoEncoder:
    """The model in ``folder``, as ``SentenceTransformer.save_pretrained`` writes it with ``backend="openvino"``.

    Args:
        folder: the saved model.
        about: ``{"longest": word pieces a text may have, "pad": number of the piece that fills up, "pooling": "mean" or
            "cls", the first piece's vector}``.
        prompts: what is put before a question (True), and before what is remembered (False).
        keep: numbers of a vector that are kept; None for all.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], prompts: Mapping[bool, str], keep: int | None = None
    ) -> None:
        import openvino
        from tokenizers import Tokenizer

        self._openvino: Any = openvino
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(about["longest"])
        self._longest: int = about["longest"]
        self._pad, self._prompts, self._keep = about["pad"], prompts, keep
        self._graph = _pooled(openvino, openvino.Core().read_model(folder / GRAPH), about["pooling"])
        self._names = [port.get_any_name() for port in self._graph.inputs]
        self._dimension: int = self._graph.outputs[0].get_partial_shape()[1].get_length()
        self._streams = 1
        self._queue: Any = None

    def compile(self, threads: int) -> None:
        """Get ready to compute with so many threads."""
        properties = {
            **EXACT,
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        compiled = self._openvino.compile_model(self._graph, "CPU", properties)
        self._streams = threads  # of one thread each, none of which waits for another
        self._queue = self._openvino.AsyncInferQueue(compiled, threads)

    def prepare(self, texts: Sequence[str], *, query: bool = False) -> list[Prepared]:
        """Split texts into word pieces; what is prepared is their numbers, int64 (length,)."""
        prompt = self._prompts[query]
        found = self._tokenizer.encode_batch([prompt + text for text in texts])
        return [Prepared(len(each.ids), np.array(each.ids, np.int64)) for each in found]

    def encode(self, items: Sequence[Prepared]) -> npt.NDArray[np.float32]:
        """Return the embeddings, float32 (n, dimension), each of length 1."""
        order = sorted(range(len(items)), key=lambda place: items[place].length)
        parts = parts_of([items[place].length for place in order], self._streams)
        parts.sort(key=lambda part: part.pieces, reverse=True)  # a large one at the end would leave others idle
        inputs = [self._filled([items[place] for place in order[part.start : part.stop]], part) for part in parts]
        vectors = np.empty((len(items), self._dimension), np.float32)

        def keep(request: Any, places: list[int]) -> None:
            vectors[places] = request.get_output_tensor(0).data[: len(places)]

        self._queue.set_callback(keep)
        for part, given in zip(parts, inputs, strict=True):  # which are kept until all is computed
            self._queue.start_async(given, order[part.start : part.stop], share_inputs=True)
        self._queue.wait_all()
        return self._kept(vectors)

    def taken(self, length: int) -> int:
        """Return how many word pieces are computed for a text of ``length``: it is filled up."""
        return min(filled_length(length), self._longest)

    def inputs(self, items: Sequence[Prepared]) -> dict[str, npt.NDArray[np.int64]]:
        """Return what the graph takes, each int64 (n, longest)."""
        return self._inputs(items, len(items), max(item.length for item in items))

    def _filled(self, items: Sequence[Prepared], part: Part) -> dict[str, npt.NDArray[np.int64]]:
        return self._inputs(items, part.texts, min(part.length, self._longest))  # there are no places behind that

    def _inputs(self, items: Sequence[Prepared], texts: int, length: int) -> dict[str, npt.NDArray[np.int64]]:
        shape = texts, length
        numbers, mask = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int64)
        for row, item in enumerate(items):
            numbers[row, : item.length] = item.content
            mask[row, : item.length] = 1
        known = {"input_ids": numbers, "attention_mask": mask}
        return {name: known[name] if name in known else np.zeros(shape, np.int64) for name in self._names}

    def _kept(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._keep is None:
            return vectors
        kept = vectors[:, : self._keep]
        scaled: npt.NDArray[np.float32] = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12)
        return scaled


def _pooled(openvino: Any, graph: Any, pooling: str) -> Any:
    """Return ``graph`` with one vector, of length 1, for each text in place of one for each of its word pieces."""
    from openvino import opset13 as operators

    along, last = (operators.constant(np.array([axis], np.int64)) for axis in (1, 2))
    pieces = graph.outputs[0].get_node().input_value(0)
    if pooling == "cls":
        first = operators.constant(np.array(0, np.int64))
        pooled = operators.gather(pieces, first, operators.constant(np.array(1, np.int64)))
    else:
        given = next(port for port in graph.inputs if "attention_mask" in port.get_names())
        mask = operators.unsqueeze(operators.convert(given.get_node(), "f32"), last)
        total = operators.reduce_sum(operators.multiply(pieces, mask), along)
        pooled = operators.divide(total, operators.reduce_sum(mask, along))
    scaled = operators.normalize_l2(pooled, along, 1e-12, "add")
    return openvino.Model([operators.result(scaled)], [port.get_node() for port in graph.inputs], "encoder")
