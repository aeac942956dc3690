"""The forward in OpenVINO: the faster runtime on a CPU.

Pooling is inside the graph (`encoder.backends.converted_model`). Many batches are computed on one
stream a thread: each works on a small batch of its own, which keeps it in its core's cache. On few
batches, and in float32, all threads work together. Where short texts are expected, one alone and
rows that several share (`encoder.backends.openvino_packed`) have graphs of fixed shape. Many
documents take a graph that computes [CLS] alone (`encoder.backends.cls_only`). Nothing is
sent anywhere: OpenVINO's telemetry is kept out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from encoder.backends.base import PackedTexts, TokenBatch
from encoder.backends.converted_model import ConvertedModel, not_convertible
from encoder.backends.fidelity import (
    MIN_EXACT_COSINE,
    MIN_REDUCED_COSINE,
    lowest_cosine,
    proof_ids,
)
from encoder.backends.openvino_conversion import import_openvino
from encoder.backends.openvino_graph import CompiledGraph, InferRequest
from encoder.backends.openvino_packed import PackedGraphs, lone_batch, packed_shapes, proven
from encoder.errors import BackendError, ModelLoadError
from encoder.placement import usable_cpus

__all__ = ["OpenVinoBackend"]

_BATCH_TOKENS = 1024
"""Per stream. Larger batches leave the cache, smaller ones leave the vector units idle."""
_THREADS_WITH_WORK = 8
"""Threads of one stream for which a batch is made larger."""
_OVERHEAD_TOKENS = 48
"""What starting a forward costs: 64 rows of 12 tokens take 97 ms, one row 4.9 to 6.8."""
_FEW_A_STREAM = 2
"""Up to so many batches a stream, all threads work on each in turn: streams of one thread would
wait for the last of them (2 cores, NoInstruct shape: one text 4.9 ms instead of 6.7, a batch of 16
27 ms instead of 48; on many batches both are as fast)."""
_PROOF_LENGTHS = (3, 12, 29, 7)
_SINGLE_LENGTHS = (16, 24, 32, 64)
"""A graph of flexible shape prepares again whenever the shape differs from the last one's: 600
queries one by one took 8.7 to 9.8 ms each (p50) with it and 4.3 to 7.4 ms with three of these. A
shorter row takes less, too (16 tokens 2.0 ms, 24 2.4, 32 3.0). One of 12 would take 1.8, and comes
out wrong (OpenVINO 2026.4: cosine 0.83 with MiniLM)."""
_SINGLE_LENGTHS_OF_LARGER = (16, 32, 64)
"""For models of more than `_SMALL_BYTES`: each graph holds the weights once more."""
_COPIED_WEIGHTS = 150_000_000
_ROW_COUNTS = (1, 2, 3, 4, 8)
"""Rows of several texts are computed in parts of so many, each on a graph of its own."""
_ROW_COUNTS_OF_LARGER = (1, 4)
"""For the same models."""
_SMALL_BYTES = 150_000_000
_PACKED_THREADS = 4
"""Threads, or up to three more, that work on such a part together in bfloat16; with twice as many,
two parts are computed at once."""
_BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2}
_PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16"}

_logger = logging.getLogger(__name__)

_Vectors = npt.NDArray[np.float32]


class OpenVinoBackend:
    """A model in OpenVINO on the CPU.

    Args:
        model: The model, converted.
        dtype: "float32" or "bfloat16": precision of the forward; of a model in int8, of what was
            not quantized.
        max_batch_tokens: Padded tokens per forward of one stream, or None for the default.
        num_threads: CPU threads, or None for the CPUs that this process may use.
        convert_packed: Converts the same model for rows of several texts (`convert_packed_model`),
            when that is asked for; None where its architecture does not allow it.

    Raises:
        ModelLoadError: OpenVINO is not installed, or cannot compile the model.
    """

    name = "openvino"
    computes_padding = True
    device = "cpu"

    def __init__(
        self,
        model: ConvertedModel,
        *,
        dtype: str,
        max_batch_tokens: int | None = None,
        num_threads: int | None = None,
        convert_packed: Callable[[], Any] | None = None,
    ) -> None:
        openvino = import_openvino("backend openvino", "use backend torch")
        threads = self._threads = num_threads or usable_cpus()
        # In float32 streams have disturbed each other: see docs/decisions.md, 2026-11-24.
        self.streams = 1 if dtype == "float32" else threads
        self.overhead_tokens = _OVERHEAD_TOKENS
        self.dtype = "int8" if model.is_int8 else dtype
        # Of a graph's vectors to those of another one, in the same precision.
        self._least_cosine = MIN_EXACT_COSINE if self.dtype == "float32" else MIN_REDUCED_COSINE
        self.dimension = model.dimension
        self.pad_token_id = model.pad_token_id
        self.max_batch_tokens = max_batch_tokens or _BATCH_TOKENS * min(
            threads // self.streams, _THREADS_WITH_WORK
        )
        self._compiler = _Compiler(openvino, model.pooled, dtype, threads)
        self._few = self._compiler.compile(streams=1)
        # Compiled when first needed: a job has use for one of them.
        self._many: CompiledGraph | None = None
        self._many_cls: CompiledGraph | None = None
        self._may_copy = model.n_weights <= _COPIED_WEIGHTS
        # Another graph with weights of its own; None where it may not be compiled.
        self._cls_only = model.cls_only if self._may_copy else None
        self._single: dict[int, CompiledGraph] = {}
        self._convert_packed = convert_packed
        self.packed: PackedTexts | None = None
        self._is_small = model.n_weights * _BYTES_PER_WEIGHT[dtype] <= _SMALL_BYTES

    def expect_short_texts(self) -> None:
        """Compile graphs of fixed shape, for texts that come alone and for rows of several.

        Each holds weights of its own: a model of more than 150 million is left as it is, and one of
        more than 150 MB has fewer of them.
        """
        self._graph_of_many(all_cls=False)
        # From now on a request would wait for its compiling; queries do not need it.
        self._cls_only = None
        if not self._may_copy or self._single:
            return
        for length in _SINGLE_LENGTHS if self._is_small else _SINGLE_LENGTHS_OF_LARGER:
            shapes = [(1, length), (1, length), (1,)]
            graph = self._compiler.compile(streams=1, shapes=shapes)
            if self._gives_same_vectors(graph, length):
                self._single[length] = graph
        if self._convert_packed is None:
            return
        try:
            graphs = self._compile_packed(self._convert_packed())
            self.packed = proven(graphs, self.forward, self.pad_token_id)
        except (ModelLoadError, BackendError) as error:
            # Texts are padded then, as everywhere else.
            _logger.warning("short texts cannot share rows: %s", error)

    def _gives_same_vectors(self, graph: CompiledGraph, length: int) -> bool:
        """Whether a graph of fixed shape gives a text the vector that the flexible one gives it."""
        lowest = 1.0
        for tokens in (3, length // 2 + 1, length):
            for is_cls in (False, True):
                alone = lone_batch(proof_ids(tokens), is_cls, self.pad_token_id)
                [(_, expected)] = self._few.forward([alone])
                [(_, found)] = graph.forward([alone.padded_to(length, self.pad_token_id)])
                lowest = min(lowest, lowest_cosine(found, expected))
        if lowest < self._least_cosine:
            _logger.warning("%d tokens come out otherwise (cosine %.5f): not used", length, lowest)
        return lowest >= self._least_cosine

    def _compile_packed(self, converted: Any) -> PackedGraphs:  # noqa: ANN401 - OpenVINO has no types
        streams = min(self.streams, max(1, self._threads // _PACKED_THREADS))
        graphs = {
            rows: self._compiler.compile(
                streams=streams, shapes=packed_shapes(rows), converted=converted
            )
            for rows in (_ROW_COUNTS if self._is_small else _ROW_COUNTS_OF_LARGER)
        }
        return PackedGraphs(graphs, streams=streams)

    def forward(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, _Vectors]]:
        """Yield (position, vectors (B, H)) in the order of the batches."""
        remaining = iter(batches)
        first = list(islice(remaining, _FEW_A_STREAM * self.streams + 1))
        if single := self._graph_of_single(first):
            length, graph = single
            yield from graph.forward([first[0].padded_to(length, self.pad_token_id)])
        elif len(first) <= _FEW_A_STREAM * self.streams:
            yield from self._few.forward(first)
        else:
            yield from self._forward_many(chain(first, remaining))

    def _forward_many(self, batches: Iterable[TokenBatch]) -> Iterator[tuple[int, _Vectors]]:
        """As `forward`, one run after the other of batches that take the same graph."""
        position = 0
        for is_cls, run in groupby(batches, key=self._takes_cls_graph):
            # Looked up when the run before has ended: proving one computes on another.
            for _, vectors in self._graph_of_many(all_cls=is_cls).forward(run):
                yield position, vectors
                position += 1

    def _takes_cls_graph(self, batch: TokenBatch) -> bool:
        return batch.all_cls and (self._cls_only is not None or self._many_cls is not None)

    def _graph_of_many(self, *, all_cls: bool) -> CompiledGraph:
        """Return the graph for many batches; that of [CLS] alone computes less."""
        if all_cls and self._cls_only is not None:
            self._many_cls = self._proven_cls(self._cls_only)
            self._cls_only = None
        if all_cls and self._many_cls is not None:
            return self._many_cls
        if self._many is None:
            one = self.streams == 1
            self._many = self._few if one else self._compiler.compile(streams=self.streams)
        return self._many

    def _proven_cls(self, converted: Any) -> CompiledGraph | None:  # noqa: ANN401 - OpenVINO has no types
        """Compile the graph of [CLS] alone; return it if its vectors are those of the other."""
        graph = self._compiler.compile(streams=self.streams, converted=converted)
        texts = [proof_ids(length) for length in _PROOF_LENGTHS]
        batch = TokenBatch.pad(
            texts,
            np.ones(len(texts), dtype=np.bool_),
            padded_length=max(_PROOF_LENGTHS),
            pad_token_id=self.pad_token_id,
        )
        [(_, expected)] = self._few.forward([batch])
        # Every stream computes it.
        alike = [batch] * (2 * self.streams)
        lowest = min(lowest_cosine(vectors, expected) for _, vectors in graph.forward(alike))
        if lowest >= self._least_cosine:
            return graph
        _logger.warning("[CLS] alone comes out otherwise (cosine %.5f): not used", lowest)
        return None

    def _graph_of_single(self, batches: list[TokenBatch]) -> tuple[int, CompiledGraph] | None:
        """Return the length and graph of the fixed shape that fits one text alone."""
        if len(batches) != 1 or len(batches[0]) != 1:
            return None
        lengths = (length for length in self._single if length >= batches[0].padded_tokens)
        length = min(lengths, default=None)
        return None if length is None else (length, self._single[length])

    def close(self) -> None:
        """Free the model."""
        self._single.clear()
        self.packed = None
        del self._many, self._many_cls, self._few, self._cls_only, self._compiler


class _Compiler:
    """Compiles one converted model, for different uses.

    Args:
        openvino: The package.
        converted: The model, of flexible shape.
        dtype: Precision of the forward.
        threads: CPU threads of a graph, over all its streams.
    """

    def __init__(self, openvino: ModuleType, converted: Any, dtype: str, threads: int) -> None:  # noqa: ANN401 - OpenVINO has no types
        self._openvino = openvino
        self._converted = converted
        self._dtype = dtype
        self._threads = threads

    def compile(
        self,
        *,
        streams: int,
        shapes: Sequence[tuple[int, ...]] | None = None,
        converted: Any = None,  # noqa: ANN401 - OpenVINO has no types
    ) -> CompiledGraph:
        """Return a graph.

        Args:
            streams: Forwards that it computes at once; they share the threads.
            shapes: Of each input, the same in every batch, or None for any.
            converted: Another form of the model, of flexible shape; None for the usual one.
        """
        model = converted or self._converted
        if shapes is not None:
            model = self._reshaped(model, shapes)

        def open_requests() -> list[InferRequest]:
            options = {
                "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[self._dtype],
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": self._threads,
                # Several actors on a machine would all be pinned to the same first cores.
                "ENABLE_CPU_PINNING": False,
            }
            try:
                compiled = self._openvino.Core().compile_model(model, "CPU", options)
            except RuntimeError as error:
                raise not_convertible(error) from error
            # Twice the streams: none is idle while results are taken in order.
            return [compiled.create_infer_request() for _ in range(2 * streams)]

        return CompiledGraph(open_requests)

    def _reshaped(self, converted: Any, shapes: Sequence[tuple[int, ...]]) -> Any:  # noqa: ANN401 - OpenVINO has no types
        fixed = converted.clone()
        partial = map(self._openvino.PartialShape, shapes)
        try:
            fixed.reshape(dict(zip(fixed.inputs, partial, strict=True)))
        except (RuntimeError, ValueError) as error:
            raise not_convertible(error) from error
        return fixed
