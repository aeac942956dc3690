"""How sources are cut into work units."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import SourceChangedError, UnreadableSourceError
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources
from pipelines.source.units import Format, RangeKind, Source, WorkUnit


def plan(*paths: Path, unit_bytes: int = 1000, tolerate: bool = False) -> list[WorkUnit]:
    sources = list_sources([str(path) for path in paths], None)
    return plan_units(sources, unit_bytes=unit_bytes, tolerate_unreadable=tolerate)


def parquet(path: Path, rows: int, row_group_size: int) -> Path:
    table = pa.table({"id": range(rows), "text": [f"text {number}" for number in range(rows)]})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def ranges(units: list[WorkUnit]) -> list[tuple[int, int]]:
    return [(unit.start, unit.stop) for unit in units]


def test_row_groups_are_joined_up_to_the_bytes_of_a_unit(tmp_path):
    path = parquet(tmp_path / "a.parquet", rows=1000, row_group_size=100)
    group = sum(
        pq.read_metadata(path).row_group(0).column(c).total_compressed_size for c in range(2)
    )
    units = plan(path, unit_bytes=int(group * 3.5))
    assert ranges(units) == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert [unit.rows for unit in units] == [300, 300, 300, 100]
    assert [unit.first_row for unit in units] == [0, 300, 600, 900]
    assert all(unit.kind is RangeKind.ROW_GROUPS for unit in units)


def test_a_row_group_larger_than_a_unit_is_a_unit_of_its_own(tmp_path):
    units = plan(parquet(tmp_path / "a.parquet", 250, 100), unit_bytes=1)
    assert ranges(units) == [(0, 1), (1, 2), (2, 3)]
    assert [unit.rows for unit in units] == [100, 100, 50]
    assert all(unit.size_bytes > 1 for unit in units)


def test_a_parquet_file_without_row_groups_is_one_empty_unit(tmp_path):
    path = tmp_path / "a.parquet"
    pq.ParquetWriter(path, pa.schema([("id", pa.int64())])).close()
    (unit,) = plan(path)
    assert (unit.start, unit.stop, unit.rows, unit.first_row) == (0, 0, 0, 0)


@settings(deadline=None)
@given(size=st.integers(0, 5000), unit_bytes=st.integers(1, 700))
def test_byte_ranges_cover_a_file_once_in_order(size, unit_bytes):
    source = Source("/a.jsonl", "v", size, Format.JSONL)
    units = plan_units([source], unit_bytes=unit_bytes, tolerate_unreadable=False)
    assert units[0].start == 0
    assert units[-1].stop == size
    assert all(left.stop == right.start for left, right in pairwise(units))
    assert all(0 < unit.stop - unit.start <= unit_bytes for unit in units) or size == 0
    assert [unit.first_row for unit in units] == [0] + [None] * (len(units) - 1)
    assert len({unit.key for unit in units}) == len(units)


def test_an_empty_text_file_is_one_empty_unit(tmp_path):
    (tmp_path / "a.txt").touch()
    (unit,) = plan(tmp_path / "a.txt")
    assert (unit.kind, unit.start, unit.stop, unit.first_row) == (RangeKind.BYTES, 0, 0, 0)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl.gz", "a.jsonl.zst", "a.txt.gz"])
def test_a_file_that_only_streams_is_one_unit(tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * 5000)
    (unit,) = plan(tmp_path / name, unit_bytes=100)
    assert (unit.kind, unit.start, unit.stop) == (RangeKind.FILE, 0, 0)
    assert (unit.rows, unit.first_row, unit.size_bytes) == (None, 0, 5000)


def test_the_plan_is_the_same_every_time_and_in_the_order_of_the_sources(tmp_path):
    for number in range(40):
        parquet(tmp_path / f"{number:02d}.parquet", 50, 10)
    first, second = plan(tmp_path, unit_bytes=500), plan(tmp_path, unit_bytes=500)
    assert first == second
    assert [unit.source.uri for unit in first] == sorted(unit.source.uri for unit in first)
    assert len({unit.key for unit in first}) == len(first)


def truncated(path: Path) -> Path:
    content = parquet(path, 100, 100).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 500])
def test_a_file_that_is_not_parquet_inside_fails_the_plan_in_one_line(tmp_path, content):
    path = tmp_path / "bad.parquet"
    path.write_bytes(content)
    with pytest.raises(UnreadableSourceError) as error:
        plan(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unreadable_file_is_planned_with_its_reason_where_that_is_tolerated(tmp_path):
    bad, good = truncated(tmp_path / "a.parquet"), parquet(tmp_path / "b.parquet", 10, 10)
    with pytest.raises(UnreadableSourceError, match=r"a\.parquet"):
        plan(bad, good)
    unreadable, readable = plan(bad, good, tolerate=True)
    assert unreadable.kind is RangeKind.UNREADABLE
    assert str(bad) in unreadable.reason
    assert readable.rows == 10
    assert WorkUnit.from_json(unreadable.to_json()) == unreadable


def test_a_file_that_vanished_after_the_listing_is_a_changed_source(tmp_path):
    path = parquet(tmp_path / "a.parquet", 10, 10)
    sources = list_sources([str(path)], None)
    path.unlink()
    with pytest.raises(SourceChangedError, match=r"a\.parquet"):
        plan_units(sources, unit_bytes=100, tolerate_unreadable=True)


def test_the_same_bytes_read_as_another_format_are_another_unit(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 1}\n')
    keys = {
        unit.key
        for found in (Format.JSONL, Format.TEXT)
        for unit in plan_units(
            list_sources([str(file)], found), unit_bytes=100, tolerate_unreadable=False
        )
    }
    assert len(keys) == 2


def test_units_and_their_keys_are_the_same_in_every_version_of_twofold():
    # Shards on disk are named by them: if this fails, every corpus is embedded again as a whole.
    source = Source("s3://lake/docs/a.jsonl", '"9b2c"', 2500, Format.JSONL, root="s3://lake/docs")
    units = plan_units([source], unit_bytes=1000, tolerate_unreadable=False)
    assert [(unit.start, unit.stop, unit.key) for unit in units] == [
        (0, 1000, "ded26a293686c7d938ff47198b8ca773"),
        (1000, 2000, "6b59cec0e2fa9854d4d7d78bba8272a3"),
        (2000, 2500, "8f98d5c6e979a8706363bd9096957a68"),
    ]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (RangeKind.ROW_GROUPS, "15373d29f15ac266a8d4a8839ec2065b"),
        (RangeKind.BYTES, "bbf0d46204330a1e49a6cc5242232165"),
        (RangeKind.FILE, "2e9fb4a22832d254e03f2b9d3682577a"),
        (RangeKind.UNREADABLE, "04d9b7d30b9d2ab5879a7bad75abf045"),
    ],
)
def test_of_every_kind_of_range_the_key_is_the_same_in_every_version_of_twofold(kind, key):
    source = Source("/lake/docs/a.parquet", "2500-1767225600000000000", 2500, Format.PARQUET)
    assert WorkUnit(source, kind, 0, 4, None, None, 0).key == key
