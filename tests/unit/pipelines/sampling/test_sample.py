"""A bounded part of a corpus is read, and stands for all of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from encoder.errors import InvalidInputError, StorageError
from encoder.space import Role
from pipelines.actor.prepare import LongTexts
from pipelines.sampling.pieces import PIECES, Piece, choose_pieces, readable
from pipelines.sampling.sample import CorpusSample, sample_corpus
from pipelines.sampling.strata import tokens_error
from pipelines.settings import OnLong
from pipelines.source.column_inference import infer_columns
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources
from pipelines.source.units import Format, RangeKind, Source, WorkUnit
from support.fake_encoder import FakeEncoder

ROWS = 4_000


def rows(count: int = ROWS) -> list[dict[str, str]]:
    """Texts of one to seven words: one token a word, 4 on average."""
    return [{"id": str(n), "text": " ".join(["word"] * (n % 7 + 1))} for n in range(count)]


def write(folder: Path, suffix: str, count: int = ROWS) -> Path:
    file = folder / f"texts.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows(count)), file, row_group_size=100)
        return file
    if suffix == "csv":
        lines = "id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows(count))
    elif suffix == "txt":
        lines = "".join(f"{row['text']}\n" for row in rows(count))
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows(count))
    file.write_bytes(gzip.compress(lines.encode()) if suffix.endswith(".gz") else lines.encode())
    return file


def units_of(folder: Path, unit_bytes: int = 20_000) -> list[WorkUnit]:
    sources = list_sources([str(folder)], None)
    return plan_units(sources, unit_bytes=unit_bytes, tolerate_unreadable=False)


def sampled(
    folder: Path,
    *,
    sample_bytes: int = 10**9,
    sample_documents: int = 10**6,
    on_long: OnLong = OnLong.TRUNCATE,
) -> CorpusSample:
    sources = list_sources([str(folder)], None)
    columns = infer_columns(sources, id_column="id", text_columns=("text",), pass_through=())
    return sample_corpus(
        units_of(folder),
        columns,
        FakeEncoder(),
        role=Role.DOCUMENT,
        long_texts=LongTexts(on_long),
        sample_bytes=sample_bytes,
        sample_documents=sample_documents,
    )


def tokens(sample: CorpusSample) -> float:
    return sum(stratum.tokens for stratum in sample.strata)


def documents(sample: CorpusSample) -> float:
    return sum(stratum.documents for stratum in sample.strata)


TOKENS = sum(n % 7 + 1 for n in range(ROWS))
FORMATS = ["jsonl", "jsonl.gz", "parquet", "csv", "txt"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_small_corpus_is_counted_whole(tmp_path: Path, suffix: str):
    write(tmp_path, suffix)
    sample = sampled(tmp_path)
    assert sample.whole
    assert (documents(sample), tokens(sample)) == (ROWS, TOKENS)
    assert tokens_error(sample.strata) == 0


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv", "txt"])
def test_of_a_large_corpus_a_part_is_read_and_the_rest_estimated(tmp_path: Path, suffix: str):
    size = write(tmp_path, suffix).stat().st_size
    sample = sampled(tmp_path, sample_bytes=size // 5)
    assert not sample.whole
    assert sample.rows_read < ROWS / 2
    assert documents(sample) == pytest.approx(ROWS, rel=0.05)
    assert tokens(sample) == pytest.approx(TOKENS, rel=0.05)


def test_the_head_of_a_compressed_file_stands_for_the_file(tmp_path: Path):
    file = tmp_path / "texts.jsonl.gz"
    lines = "".join(json.dumps(row) + "\n" for row in rows(200_000)).encode()
    file.write_bytes(gzip.compress(lines))
    sample = sampled(tmp_path, sample_bytes=file.stat().st_size // 2)
    assert sample.rows_read < 110_000
    assert documents(sample) == pytest.approx(200_000, rel=0.05)


def test_formats_are_extrapolated_each_by_itself(tmp_path: Path):
    write(tmp_path, "jsonl")
    write(tmp_path, "parquet", count=300)
    total = sum(file.stat().st_size for file in tmp_path.iterdir())
    sample = sampled(tmp_path, sample_bytes=total // 2)
    by_kind = {stratum.units[0].kind: stratum.documents for stratum in sample.strata}
    assert by_kind[RangeKind.ROW_GROUPS] == 300
    assert by_kind[RangeKind.BYTES] == pytest.approx(ROWS, rel=0.05)


def test_no_more_documents_are_tokenized_than_asked_for(tmp_path: Path):
    write(tmp_path, "jsonl")
    sample = sampled(tmp_path, sample_documents=100)
    assert 0 < sample.sampled <= 100
    assert documents(sample) == ROWS
    assert tokens(sample) == pytest.approx(TOKENS, rel=0.2)


def test_the_same_corpus_gives_the_same_plan(tmp_path: Path):
    write(tmp_path, "jsonl")
    first, second = (sampled(tmp_path, sample_bytes=30_000, sample_documents=200) for _ in range(2))
    assert tokens(first) == tokens(second)


def test_long_texts_are_chunked_as_the_job_does(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "text": "word " * 15 + "end"}) + "\n" for n in range(5))
    )
    truncated = sampled(tmp_path).strata[0]
    chunked = sampled(tmp_path, on_long=OnLong.CHUNK).strata[0]
    rejected = sampled_or_none(tmp_path)
    assert (truncated.outputs, truncated.truncated, truncated.tokens) == (5, 5, 40)
    assert (chunked.outputs, chunked.truncated, chunked.tokens) == (10, 0, 80)
    assert rejected is None


def sampled_or_none(folder: Path) -> CorpusSample | None:
    """Return the sample under `--on-long reject`, or None where nothing is left."""
    try:
        return sampled(folder, on_long=OnLong.REJECT)
    except InvalidInputError:
        return None


def test_a_corpus_without_documents_is_refused(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": ""}\n')
    with pytest.raises(
        InvalidInputError, match=r"expected documents, found none in 1 pieces \(1 rows\)"
    ):
        sampled(tmp_path)


def test_pieces_stay_within_the_bytes_that_may_be_read(tmp_path: Path):
    size = write(tmp_path, "jsonl").stat().st_size
    pieces = choose_pieces(units_of(tmp_path), sample_bytes=size // 4)
    assert len(pieces) == PIECES
    assert sum(piece.stored_bytes for piece in pieces) <= size // 4
    assert all(0 <= piece.unit.start < piece.unit.stop <= size for piece in pieces)


def test_a_store_that_refuses_the_head_of_a_file_is_one_line_that_says_what_to_check(monkeypatch):
    class HttpError(Exception):
        """gcsfs' for 429 and 5xx."""

    def refuse(*_: object, **__: object) -> None:
        raise HttpError("Service Unavailable, 503")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    source = Source("memory://in/a.csv", "v", 100, Format.CSV, None)
    unit = WorkUnit(source, RangeKind.FILE, 0, 1, None, None, 100)
    with (
        pytest.raises(StorageError, match=r"read memory://in/a\.csv: .*HttpError.*role"),
        readable(Piece(unit, unit, 10, whole=False)),
    ):
        pass
