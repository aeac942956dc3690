"""One model, two poolings: texts of either role in, comparable vectors out.

The one place where tokens become vectors, offline and online: batch by token budget, run the
backend, put rows back in input order, cut to `truncate_dim`, normalize. `load_encoder` is the way
in; neither Ray nor HTTP is known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from encoder.backends.base import Backend, PackedBatch, TokenBatch
from encoder.batching import Batch, Packing, plan_batches, plan_short_texts
from encoder.errors import BackendError, InvalidInputError, NonFiniteVectorsError
from encoder.role_tokenizer import RoleTokenizer
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace, Pooling, Role
from encoder.tokenizer import Tokenized, Tokenizer

__all__ = ["Encoded", "EncodedVectors", "Encoder", "finish_vectors", "load_encoder"]


@dataclass(frozen=True)
class EncodedVectors:
    """Vectors in input order, and what they cost.

    Attributes:
        vectors: float32 (N, D).
        padded_tokens: Tokens computed, with the padding of rows (not of recorded forwards).
    """

    vectors: npt.NDArray[np.float32]
    padded_tokens: int


@dataclass(frozen=True)
class Encoded:
    """Texts encoded in one go, in input order.

    Attributes:
        vectors: float32 (N, D).
        n_tokens: Tokens given to the model, int32 (N,).
        truncated: Whether a text was longer than `max_seq_length`, bool (N,).
        padded_tokens: Tokens computed, padding included.
    """

    vectors: npt.NDArray[np.float32]
    n_tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    padded_tokens: int


class Encoder(RoleTokenizer):
    """A loaded model and its embedding space. Safe to use from several threads.

    Args:
        space: What makes the vectors comparable.
        tokenizer: Cuts at the space's `max_seq_length`.
        backend: Does the forward.
        provenance: Model, revision, backend, dtype, device and versions: what is not the space.
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        tokenizer: Tokenizer,
        backend: Backend,
        provenance: dict[str, str],
    ) -> None:
        super().__init__(space, tokenizer)
        self.provenance = provenance
        self._backend = backend
        self._forward_lock = threading.Lock()
        self._pools_cls = {role: space.role(role).pooling is Pooling.CLS for role in Role}

    @property
    def max_batch_tokens(self) -> int:
        """Padded tokens per forward, as it stands by now."""
        return self._backend.max_batch_tokens

    @property
    def max_concurrent_tokens(self) -> int:
        """Padded tokens that are computed at once, all streams of the backend together."""
        return self._backend.max_batch_tokens * self._backend.streams

    def encode_tokenized(
        self,
        tokenized: Tokenized,
        roles: Role | Sequence[Role],
        *,
        heartbeat: Callable[[], None] | None = None,
    ) -> EncodedVectors:
        """Encode texts that were tokenized before.

        Args:
            tokenized: N texts; `Tokenized.join` puts roles together.
            roles: One role, or one for each text; they share forwards.
            heartbeat: Called after every finished forward; what it raises ends the encoding.

        Raises:
            InvalidInputError: There are not as many roles as texts.
            NonFiniteVectorsError: Some rows came out NaN, infinite or zero; names them.
            BackendError: The forward failed.
        """
        is_cls = self._is_cls(roles, len(tokenized))
        pooled = np.empty((len(tokenized), self._backend.dimension), dtype=np.float32)  # (N, H)
        with self._forward_lock:
            batches, packings = self._plan(tokenized)
            is_missing = np.ones(len(tokenized), dtype=np.bool_)
            for indices, vectors in chain(
                self._forward(batches, tokenized, is_cls),
                self._forward_packed(packings, tokenized, is_cls),
            ):
                pooled[indices] = vectors
                is_missing[indices] = False
                if heartbeat is not None:
                    heartbeat()
        if is_missing.any():
            # Rows that nobody filled would hold whatever was in memory before.
            raise BackendError(
                f"expected vectors of {len(tokenized)} texts from {self._backend.name}, found "
                f"{is_missing.sum()} missing; encode them again or use another backend"
            )
        padded_tokens = tokenized.total_tokens
        if self._backend.computes_padding:
            padded_tokens = sum(batch.padded_tokens for batch in batches)
            padded_tokens += sum(packing.padded_tokens for packing in packings)
        return EncodedVectors(finish_vectors(pooled, self.space), padded_tokens)

    def encode(self, texts: Sequence[str], role: Role) -> Encoded:
        """Tokenize and encode texts of one role.

        Raises:
            InvalidInputError: A text is not a string or not valid Unicode; names its index.
            BackendError: The forward failed, or rows came out NaN, infinite or zero.
        """
        tokenized = self.tokenize(texts, role)
        encoded = self.encode_tokenized(tokenized, role)
        return Encoded(
            encoded.vectors, tokenized.n_tokens, tokenized.truncated, encoded.padded_tokens
        )

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the vectors of queries, float32 (N, D)."""
        return self.encode(texts, Role.QUERY).vectors

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the vectors of documents, float32 (N, D)."""
        return self.encode(texts, Role.DOCUMENT).vectors

    def expect_short_texts(self) -> None:
        """Prepare for short texts, alone and in crowds, as an endpoint's come; it costs memory.

        Documents in bulk are faster with an encoder that was not asked for this.
        """
        with self._forward_lock:
            self._backend.expect_short_texts()

    def close(self) -> None:
        """Free the model; the encoder cannot be used afterwards."""
        with self._forward_lock:
            self._backend.close()

    def _is_cls(self, roles: Role | Sequence[Role], count: int) -> npt.NDArray[np.bool_]:
        """Return which rows are pooled by [CLS], bool (N,)."""
        each = [roles] * count if isinstance(roles, Role) else roles
        if len(each) != count:
            raise InvalidInputError(
                f"expected one role for each of {count} texts, found {len(each)} roles; "
                "pass one role for all or as many as texts"
            )
        return np.array([self._pools_cls[role] for role in each], dtype=np.bool_)

    def _plan(self, tokenized: Tokenized) -> tuple[list[Batch], list[Packing]]:
        """Return the forwards: of texts that are padded, and of those that share rows."""
        backend = self._backend
        budget = {
            "max_batch_tokens": backend.max_batch_tokens,
            "max_seq_length": self.space.max_seq_length,
            "overhead_tokens": backend.overhead_tokens,
        }
        if backend.packed is None or len(tokenized) == 1:
            return plan_batches(tokenized.n_tokens, **budget), []
        return plan_short_texts(tokenized.n_tokens, backend.packed.limits, **budget)

    def _forward(
        self, batches: Sequence[Batch], tokenized: Tokenized, is_cls: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield (positions of texts (B,), their pooled vectors (B, H))."""
        padded = (
            TokenBatch.pad(
                [tokenized.input_ids[index] for index in batch.indices],
                is_cls[batch.indices],
                padded_length=batch.padded_length,
                pad_token_id=self._backend.pad_token_id,
            )
            for batch in batches
        )
        for position, vectors in self._backend.forward(padded):
            yield batches[position].indices, vectors

    def _forward_packed(
        self, packings: Sequence[Packing], tokenized: Tokenized, is_cls: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """As `_forward`, of texts that share rows."""
        packed = self._backend.packed
        if packed is None:
            return
        filled = (
            PackedBatch.pack(
                [[tokenized.input_ids[index] for index in row] for row in packing.rows],
                is_cls[packing.indices],
                row_tokens=packing.row_tokens,
                max_texts=packed.limits.max_texts,
                pad_token_id=self._backend.pad_token_id,
            )
            for packing in packings
        )
        for position, vectors in packed.forward(filled):
            indices = packings[position].indices
            yield indices, vectors[: len(indices)]


def finish_vectors(
    pooled: npt.NDArray[np.float32], space: EmbeddingSpace
) -> npt.NDArray[np.float32]:
    """Turn pooled vectors (N, H) into the space's (N, D): cut, check, normalize.

    Raises:
        NonFiniteVectorsError: Some rows are NaN, infinite, or zero where unit length is asked for.
    """
    vectors = np.array(pooled[:, : space.truncate_dim], dtype=np.float32)  # (N, D)
    usable = np.isfinite(vectors).all(axis=1)  # (N,)
    if space.normalize:
        usable &= vectors.any(axis=1)
    if not usable.all():
        raise NonFiniteVectorsError(np.flatnonzero(~usable).tolist())
    if not space.normalize:
        return vectors
    # The squares of a large float32 overflow in float32.
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)  # (N,)
    vectors /= np.sqrt(squares).astype(np.float32)[:, None]
    return vectors


def load_encoder(settings: EncoderSettings) -> Encoder:
    """Load the model that the settings name.

    Raises:
        ModelLoadError: The model cannot be found, read or run as asked; the message says what to
            do.
    """
    # Imported here: it needs `Encoder`.
    from encoder.loading import load

    return load(settings)
