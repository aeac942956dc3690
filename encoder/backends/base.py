"""The seam between the encoder and a runtime: padded token batches in, pooled vectors out.

A backend knows nothing of texts, roles, prompts or order; the encoder knows nothing of devices.
Hidden states (B, T, H) never cross this seam: they are pooled inside the graph or on the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from encoder.batching import RowLimits

__all__ = ["Backend", "PackedBatch", "PackedTexts", "TokenBatch"]


@dataclass(frozen=True)
class TokenBatch:
    """Texts of one forward, padded on the right.

    Attributes:
        input_ids: int32 (B, T).
        attention_mask: 1 for a token, 0 for padding, int32 (B, T).
        is_cls: True for rows pooled by [CLS], False for the mean of their tokens, bool (B,).
    """

    input_ids: npt.NDArray[np.int32]
    attention_mask: npt.NDArray[np.int32]
    is_cls: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def arrays(self) -> list[npt.NDArray[Any]]:
        """What a graph takes, in this order."""
        return [self.input_ids, self.attention_mask, self.is_cls]

    @property
    def padded_tokens(self) -> int:
        """Tokens that the forward computes: rows x padded length."""
        return int(self.input_ids.size)

    @property
    def has_padding(self) -> bool:
        """Whether any row is shorter than the batch."""
        return not bool(self.attention_mask.all())

    @property
    def all_cls(self) -> bool:
        """Whether every row is pooled by [CLS]."""
        return bool(self.is_cls.all())

    def padded_to(self, length: int, pad_token_id: int) -> TokenBatch:
        """Return the batch with rows of `length` tokens, which is no less than they have."""
        rows, tokens = self.input_ids.shape
        ids = np.full((rows, length), pad_token_id, dtype=np.int32)  # (B, length)
        mask = np.zeros((rows, length), dtype=np.int32)  # (B, length)
        ids[:, :tokens], mask[:, :tokens] = self.input_ids, self.attention_mask
        return TokenBatch(ids, mask, self.is_cls)

    def halves(self) -> tuple[TokenBatch, TokenBatch]:
        """Return the batch as two, the first one the larger."""
        middle = (len(self) + 1) // 2
        return self._rows(slice(0, middle)), self._rows(slice(middle, None))

    def _rows(self, rows: slice) -> TokenBatch:
        return TokenBatch(self.input_ids[rows], self.attention_mask[rows], self.is_cls[rows])

    @classmethod
    def pad(
        cls,
        input_ids: Sequence[npt.NDArray[np.int32]],
        is_cls: npt.NDArray[np.bool_],
        *,
        padded_length: int,
        pad_token_id: int,
    ) -> TokenBatch:
        """Pad rows of ids to one length.

        Args:
            input_ids: B rows of int32 (T_i,), none longer than `padded_length`.
            is_cls: Pooling of each row, bool (B,).
            padded_length: T.
            pad_token_id: What stands in the padding (some models count positions by it).
        """
        shape = (len(input_ids), padded_length)
        ids = np.full(shape, pad_token_id, dtype=np.int32)  # (B, T)
        mask = np.zeros(shape, dtype=np.int32)  # (B, T)
        for row, tokens in enumerate(input_ids):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return cls(ids, mask, is_cls)


@dataclass(frozen=True)
class PackedBatch:
    """Texts of one forward, several in each row. Attention stays within a text.

    Attributes:
        input_ids: int32 (R, T).
        position_ids: Place of each token in its text, int32 (R, T).
        text_ids: Number of the text that a token is of, from 1; 0 for padding; int32 (R, T).
        starts: Place of each text's first token in the rows laid end to end, int32 (S,); S is the
            same for all batches of R rows, so the last ones may stand for no text.
        is_cls: True for texts pooled by [CLS], bool (S,).
    """

    input_ids: npt.NDArray[np.int32]
    position_ids: npt.NDArray[np.int32]
    text_ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    is_cls: npt.NDArray[np.bool_]

    @property
    def arrays(self) -> list[npt.NDArray[Any]]:
        """What a graph takes, in this order."""
        return [self.input_ids, self.position_ids, self.text_ids, self.starts, self.is_cls]

    @classmethod
    def pack(
        cls,
        rows: Sequence[Sequence[npt.NDArray[np.int32]]],
        is_cls: npt.NDArray[np.bool_],
        *,
        row_tokens: int,
        max_texts: int,
        pad_token_id: int,
    ) -> PackedBatch:
        """Lay texts end to end in rows.

        Args:
            rows: R rows of texts, each int32 (T_i,); together at most T tokens.
            is_cls: Pooling of each text, row after row, bool (B,).
            row_tokens: T.
            max_texts: Texts that a row may hold, so that S is R times that.
            pad_token_id: What stands in the padding.
        """
        shape = (len(rows), row_tokens)
        ids = np.full(shape, pad_token_id, dtype=np.int32)  # (R, T)
        positions, text_ids = np.zeros_like(ids), np.zeros_like(ids)  # (R, T)
        starts = np.zeros(len(rows) * max_texts, dtype=np.int32)  # (S,)
        number = 0
        for row, texts in enumerate(rows):
            end = 0
            for tokens in texts:
                start, end = end, end + len(tokens)
                starts[number] = row * row_tokens + start
                number += 1
                ids[row, start:end] = tokens
                positions[row, start:end] = np.arange(len(tokens))
                text_ids[row, start:end] = number
        flags = np.zeros(len(starts), dtype=np.bool_)  # (S,)
        flags[: len(is_cls)] = is_cls
        return cls(ids, positions, text_ids, starts, flags)


class PackedTexts(Protocol):
    """The part of a backend that computes rows of several texts.

    Attributes:
        limits: Of the rows.
    """

    limits: RowLimits

    def forward(
        self, batches: Iterable[PackedBatch]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (position of the batch, its pooled vectors (S, H)); see `Backend.forward`."""
        ...


class Backend(Protocol):
    """A runtime with one model loaded.

    Attributes:
        name: "torch" or "openvino".
        dtype: Precision of the forward: "float32", "bfloat16", "float16" or "int8".
        device: "cpu", "cuda:0", ...
        dimension: Hidden size H of the vectors that come out.
        pad_token_id: What the model expects in padding.
        max_batch_tokens: Padded tokens per forward that suit this device; may fall when memory
            runs out.
        overhead_tokens: Tokens that take as long as starting one more forward.
        streams: Forwards that are computed at once where there are many.
        computes_padding: Whether a batch costs its padded tokens, not only those of its texts.
        packed: Computes rows of several short texts; None where it is not prepared, or the model
            or the runtime cannot.
    """

    name: str
    dtype: str
    device: str
    dimension: int
    pad_token_id: int
    max_batch_tokens: int
    overhead_tokens: int
    streams: int
    computes_padding: bool
    packed: PackedTexts | None

    def forward(
        self, batches: Iterable[TokenBatch]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (position of the batch, its pooled vectors (B, H)), in any order.

        Batches are drawn as the device can take them. One call at a time.

        Raises:
            BackendError: The forward failed for a reason that is not one text's.
        """
        ...

    def expect_short_texts(self) -> None:
        """Prepare for short texts, one by one or a crowd of them, where that costs memory."""
        ...

    def close(self) -> None:
        """Free the model; the backend cannot be used afterwards."""
        ...
