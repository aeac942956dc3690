"""`twofold search`: exact search over a corpus, by meaning.

    twofold search --corpus s3://lake/vectors/ --query "how do I read a csv file" --k 5

The shards stream by once for all queries, a few megabytes at a time: the corpus may exceed memory.
The model is the one that the corpus was embedded with; another embedding space is refused.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from command_line.boundary import run_command
from command_line.fields import Location, OneOrMore
from command_line.parse import parse_settings
from encoder.encoder import Encoder, load_encoder
from encoder.errors import InvalidInputError
from encoder.settings import EncoderSettings
from encoder.space import Role
from pipelines.columns import CHAR_END, CHAR_START
from pipelines.corpus.blocks import live_shards, read_rows, stream_blocks
from pipelines.corpus.corpus_model import check_space, find_corpus_model
from pipelines.corpus.pin import Pin, require_pin
from pipelines.corpus.probe_vectors import check_probe_vectors
from pipelines.corpus.shards import ShardName
from pipelines.errors import CorpusError, exit_code
from pipelines.ranking import Ranked, Ranking
from pipelines.storage import Storage

__all__ = ["Found", "Hit", "SearchSettings", "main", "search"]

_SHOWN_CHARACTERS = 200


class SearchSettings(BaseModel):
    """What `twofold search` does. Field descriptions are the command's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: Location = Field(description="Output folder of `twofold embed`, or its URI")
    query: OneOrMore = Field(min_length=1, description="What to look for; repeat it for several")
    k: int = Field(10, ge=1, description="Documents to show for each query")
    encoder: EncoderSettings = Field(
        default_factory=EncoderSettings, description="unset: the model that the corpus names"
    )


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Attributes:
        id: Its id, as in the source.
        score: Cosine with the query.
        chunk_index: Which chunk of it is best.
        char_start: Where that chunk begins in the text.
        char_end: Where it ends.
        shard: File name of its shard.
        columns: The pass-through columns.
    """

    id: Any
    score: float
    chunk_index: int
    char_start: int
    char_end: int
    shard: str
    columns: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What a query found.

    Attributes:
        hits: Documents, best first; equal scores in the order of their ids.
        is_truncated: Whether the query is longer than the model reads, so that its end was not
            looked for.
    """

    hits: list[Hit]
    is_truncated: bool


def search(corpus: str, queries: Sequence[str], k: int, *, encoder: Encoder) -> list[Found]:
    """Return the k documents of a corpus that are closest to each query.

    Args:
        corpus: Output folder of `twofold embed`, local or any fsspec URI.
        queries: Texts, encoded as queries.
        k: Documents for each; fewer where the corpus holds fewer.
        encoder: Of the corpus' space.

    Returns:
        For each query what it found.

    Raises:
        CorpusError: There is no corpus there, or a shard cannot be read.
        SpaceMismatchError: The encoder, or a shard, is of another space.
        InvalidInputError: A query is empty, or k is less than 1.
    """
    if k < 1 or not all(query.strip() for query in queries):
        raise InvalidInputError("expected k of at least 1 and queries that are not empty")
    storage = Storage(corpus)
    pin = require_pin(storage)
    check_space(pin, encoder.space, "the model")
    if not queries:
        return []
    encoded = encoder.encode(queries, Role.QUERY)
    ranking = Ranking(encoded.vectors, k, cosine=not pin.space.normalize)
    try:
        for block in stream_blocks(storage, pin, live_shards(storage)):
            ranking.add(block)
        results = _with_columns(storage, pin, ranking.results())
    except CorpusError as error:
        raise CorpusError(f"{error}; run `twofold verify --output {corpus}`") from error
    return [
        Found(hits, is_truncated)
        for hits, is_truncated in zip(results, encoded.truncated.tolist(), strict=True)
    ]


def _with_columns(
    storage: Storage, pin: Pin, results: Sequence[Sequence[Ranked]]
) -> list[list[Hit]]:
    """Read what else is known of the rows that were found, and of no other."""
    wanted: dict[ShardName, set[int]] = defaultdict(set)
    for ranked in chain.from_iterable(results):
        wanted[ranked.place.shard].add(ranked.place.row)
    columns = [*pin.carried.names, CHAR_START, CHAR_END]
    rows = {
        (shard, row): values
        for shard, positions in wanted.items()
        for row, values in read_rows(storage, shard, positions, columns)
    }
    return [
        [_hit(ranked, rows[ranked.place.shard, ranked.place.row], pin) for ranked in result]
        for result in results
    ]


def _hit(ranked: Ranked, values: dict[str, Any], pin: Pin) -> Hit:
    return Hit(
        id=ranked.id,
        score=ranked.score,
        chunk_index=ranked.place.chunk_index,
        char_start=values[CHAR_START],
        char_end=values[CHAR_END],
        shard=str(ranked.place.shard),
        columns={name: values[name] for name in pin.carried.names[1:]},
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (`pipelines.errors.exit_code`)."""
    return run_command(lambda: _run(argv), exit_code)


def _run(argv: Sequence[str] | None) -> int:
    settings = parse_settings(
        SearchSettings,
        argv,
        prog="twofold search",
        description="Search a corpus by meaning, exactly: every vector is compared.",
    )
    started = time.perf_counter()
    storage = Storage(settings.corpus)
    pin = require_pin(storage)
    encoder = load_encoder(find_corpus_model(pin, settings.encoder).settings)
    check_probe_vectors(storage, encoder)
    loaded = time.perf_counter()
    results = search(settings.corpus, settings.query, settings.k, encoder=encoder)
    searched = time.perf_counter()
    console = Console(highlight=False, markup=False)
    for query, found in zip(settings.query, results, strict=True):
        console.print(_table(query, found.hits, pin.carried.names))
        if found.is_truncated:
            sys.stderr.write(
                f"query {_shown(query)!r} is longer than the model reads: its first "
                f"{pin.space.max_seq_length} tokens were looked for\n"
            )
    if not any(found.hits for found in results):
        console.print(f"no documents in {settings.corpus}", soft_wrap=True)
    console.print(
        f"model loaded in {loaded - started:.2f} s, searched in {searched - loaded:.2f} s"
    )
    return 0


def _table(query: str, hits: Sequence[Hit], names: Sequence[str]) -> Table:
    table = Table(title=Text(_shown(query)), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    for name in names:
        table.add_column(Text(_shown(name)), overflow="fold")
    for rank, hit in enumerate(hits, 1):
        values = [hit.id, *hit.columns.values()]
        table.add_row(str(rank), f"{hit.score:.4f}", *(Text(_shown(value)) for value in values))
    return table


def _shown(value: object) -> str:
    """A value on one line, without what a terminal would obey."""
    text = " ".join(str(value)[:_SHOWN_CHARACTERS].split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
