"""Some rows of a corpus, embedded again in float32 by the model card's code and compared.

Their texts are read again from the source: what a corpus says of a row is trusted in nothing but
where its text stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from encoder.backends.fidelity import LEAST_COSINE, MIN_REDUCED_COSINE, cosines
from encoder.corpus_files import PROBE_VECTORS_FILE
from encoder.model_card import ModelCard, load_model_card
from encoder.probe_vectors import ProbeVectors
from encoder.space import Role
from pipelines.actor.prepare import text_hash
from pipelines.actor.shard_stream import documents_of
from pipelines.columns import CHAR_END, CHAR_START, EMBEDDING, TEXT_HASH
from pipelines.corpus.blocks import read_rows
from pipelines.corpus.corpus_model import CorpusModel
from pipelines.corpus.index import IndexedShard
from pipelines.corpus.pin import Pin
from pipelines.corpus.shards import DATA, ShardName
from pipelines.settings import OnInvalid
from pipelines.source.units import Format, WorkUnit
from pipelines.storage import Storage
from pipelines.verification.current_sources import READ_ERRORS, plan_current_sources, reason_of

__all__ = ["SampleCheck", "check_sample", "choose_rows"]

_SEED = 20


@dataclass(frozen=True)
class SampleCheck:
    """How near stored vectors are to the model card's.

    Attributes:
        cosines: One for each row whose text was found; empty where none was.
        problems: What is wrong, a line each that names the shard.
    """

    cosines: npt.NDArray[np.float64]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    """A row of the sample."""

    shard: IndexedShard
    row: int
    id: str
    char_start: int
    char_end: int
    text_hash: bytes
    vector: npt.NDArray[np.float32]

    def __str__(self) -> str:
        return f"{self.shard.name}: row {self.row} (id {self.id!r})"


def choose_rows(shards: Sequence[IndexedShard], count: int) -> dict[ShardName, list[int]]:
    """Choose rows spread over the shards, the same on every call.

    Args:
        shards: Where to choose from.
        count: Rows to choose; of a smaller corpus all are chosen.

    Returns:
        Positions in each shard, ascending; shards of which no row was chosen are left out.
    """
    ordered = sorted(shards, key=lambda shard: shard.name)
    ends = np.cumsum([shard.footer.rows for shard in ordered])
    total = int(ends[-1]) if len(ends) else 0
    count = min(count, total)
    # One from each of `count` equal parts.
    edges = np.arange(count + 1) * total // max(count, 1)
    chosen = np.random.default_rng(_SEED).integers(edges[:-1], edges[1:])
    found: dict[ShardName, list[int]] = defaultdict(list)
    for row in map(int, chosen):
        number = int(np.searchsorted(ends, row, side="right"))
        shard = ordered[number]
        found[shard.name].append(row - (int(ends[number]) - shard.footer.rows))
    return dict(found)


def check_sample(
    storage: Storage,
    pin: Pin,
    shards: Sequence[IndexedShard],
    *,
    count: int,
    model: CorpusModel,
    probe: ProbeVectors | None,
    input_format: Format | None,
) -> SampleCheck:
    """Embed some rows, and the texts of the probe vectors, again and compare.

    Args:
        storage: The output folder.
        pin: Its space and layout.
        shards: Readable shards.
        count: Rows to look at.
        model: The corpus' model.
        probe: What the corpus keeps of its first encoder; None for nothing.
        input_format: Of the sources, where their names do not tell.

    Raises:
        ModelLoadError: The model does not load.
        CorpusError: A shard that was readable no longer is.
    """
    by_name = {shard.name: shard for shard in shards}
    by_unit: dict[str, list[_Row]] = defaultdict(list)
    for name, positions in choose_rows(shards, count).items():
        by_unit[name.unit] += _read(storage, pin, by_name[name], positions)
    sampled = [row.shard for rows in by_unit.values() for row in rows]
    current = plan_current_sources(sampled, pin, input_format, storage.below(DATA))
    texts: list[tuple[_Row, str]] = []
    problems = list(current.problems)
    for key, rows in by_unit.items():
        if key in current.units:
            found, missing = _texts(current.units[key], pin, rows)
            texts += found
            problems += missing
    card = load_model_card(model.folder, pin.space.max_seq_length)
    measured = _cosines(texts, pin, card)
    problems += _below(texts, measured, pin)
    if probe is not None:
        problems += _probe_problems(probe, pin, card)
    return SampleCheck(measured, tuple(problems))


def _read(storage: Storage, pin: Pin, shard: IndexedShard, positions: list[int]) -> Iterator[_Row]:
    identity = pin.layout.id_column
    columns = [identity, CHAR_START, CHAR_END, EMBEDDING, TEXT_HASH]
    for position, values in read_rows(storage, shard.name, positions, columns):
        yield _Row(
            shard=shard,
            row=position,
            id=str(values[identity]),
            char_start=values[CHAR_START],
            char_end=values[CHAR_END],
            text_hash=values[TEXT_HASH],
            vector=np.array(values[EMBEDDING], np.float32),
        )


def _texts(
    unit: WorkUnit, pin: Pin, rows: Sequence[_Row]
) -> tuple[list[tuple[_Row, str]], list[str]]:
    """Return the texts of rows of one unit, read from its source, and what is wrong with others."""
    waiting: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        waiting[row.id].append(row)
    start = min(row.shard.footer.row_start for row in rows)
    stop = max(row.shard.footer.row_stop for row in rows)
    found: list[tuple[_Row, str]] = []
    differing: set[str] = set()
    try:
        for batch in documents_of(unit, pin.columns, skip_rows=start, on_invalid=OnInvalid.REJECT):
            for identity, text in zip(
                batch.carried.column(0).to_pylist(), batch.texts, strict=True
            ):
                if str(identity) in waiting:
                    differing.add(str(identity))
                    found += _matching(waiting, str(identity), text, pin)
            if batch.row_stop >= stop or not waiting:
                break
    except READ_ERRORS as error:
        return found, [f"{rows[0].shard.name}: {unit.label} cannot be read: {reason_of(error)}"]
    return found, [
        f"{row}: {'its text in' if row.id in differing else 'it is not in'} {unit.label}"
        f"{' is not the one that was embedded' if row.id in differing else ''}"
        for left in waiting.values()
        for row in left
    ]


def _matching(
    waiting: dict[str, list[_Row]], identity: str, text: str, pin: Pin
) -> Iterator[tuple[_Row, str]]:
    """Yield the rows that were made of a document, and take them off the list."""
    prompt = pin.space.role(Role(pin.layout.role)).prompt
    left = []
    for row in waiting.pop(identity):
        part = text[row.char_start : row.char_end]
        if text_hash(prompt + part) == row.text_hash:
            yield row, part
        else:
            left.append(row)
    if left:
        waiting[identity] = left


def _cosines(
    texts: Sequence[tuple[_Row, str]], pin: Pin, card: ModelCard
) -> npt.NDArray[np.float64]:
    if not texts:
        return np.zeros(0)
    role = Role(pin.layout.role)
    expected = card.embed([text for _, text in texts], pin.space, role)  # (N, D)
    stored = np.stack([row.vector for row, _ in texts]).astype(np.float32)  # (N, D)
    return cosines(stored, expected)


def _below(
    texts: Sequence[tuple[_Row, str]], found: npt.NDArray[np.float64], pin: Pin
) -> Iterator[str]:
    for (row, _), cosine in zip(texts, found, strict=True):
        computed = row.shard.footer.provenance.get("dtype", "unknown")
        stored = pin.layout.embedding_dtype
        least = _least_cosine(computed, stored)
        if cosine < least:
            yield (
                f"{row}: cosine {cosine:.6f} with the model card in float32, expected {least} "
                f"(computed in {computed}, stored in {stored})"
            )


def _probe_problems(probe: ProbeVectors, pin: Pin, card: ModelCard) -> Iterator[str]:
    """Yield where the probe vectors, with which encoders are compared, are not the card's."""
    for role in Role:
        expected = card.embed(probe.texts, pin.space, role)
        if unlike := probe.unlike(role, expected, "float32"):
            yield (
                f"{PROBE_VECTORS_FILE}: {unlike}, with the model card in float32; delete it if the "
                "rows are right, and the next run that embeds something writes another"
            )


def _least_cosine(computed: str, stored: str) -> float:
    """Return the bar of a precision of the forward and one of storage."""
    return min(LEAST_COSINE.get(computed, MIN_REDUCED_COSINE), LEAST_COSINE[stored])
