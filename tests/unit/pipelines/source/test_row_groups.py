"""Rows and bytes of row groups, and footers that are damaged."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UnreadableSourceError
from pipelines.source.readers.row_groups import row_group_sizes
from pipelines.source.sources import list_sources

REPOSITORY = Path(__file__).resolve().parents[4]

FLIPPED_BITS = """
    import sys
    from collections import Counter
    from pathlib import Path
    from pipelines.errors import UnreadableSourceError
    from pipelines.source.readers.row_groups import row_group_sizes
    from pipelines.source.sources import list_sources

    path = Path(sys.argv[1])
    (source,) = list_sources([str(path)], None)
    content = bytearray(path.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    found = Counter()
    for bit in range(8 * footer, 8 * (len(content) - 8), 3):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        try:
            row_group_sizes(source)
        except UnreadableSourceError as error:
            found["histogram" if "histogram" in str(error) else "unreadable"] += 1
        else:
            found["readable"] += 1
    print(*sorted(found))
"""


def written(path: Path, table: pa.Table, **options: object) -> Path:
    pq.write_table(table, path, **options)
    return path


def test_sizes_are_compressed_bytes_of_all_columns(tmp_path):
    table = pa.table({"id": range(1000), "text": ["long " * 100] * 1000, "tags": [["x"]] * 1000})
    path = written(tmp_path / "a.parquet", table, row_group_size=400, compression="zstd")
    sizes = row_group_sizes(list_sources([str(path)], None)[0])
    assert [rows for rows, _ in sizes] == [400, 400, 200]
    # What is not a column is a magic number at the start, and the footer.
    footer = 4 + int.from_bytes(path.read_bytes()[-8:-4], "little") + 8
    assert sum(size for _, size in sizes) == path.stat().st_size - footer


def test_a_flipped_bit_in_a_footer_ends_no_process(tmp_path):
    # In a process of its own: without its care this ends by SIGABRT.
    table = pa.table({"a": pa.array([1, None], pa.int32())})
    path = written(tmp_path / "a.parquet", table, store_schema=False, write_statistics=False)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FLIPPED_BITS), str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (done.stdout.split(), done.returncode) == (
        ["histogram", "readable", "unreadable"],
        0,
    ), done.stderr


def test_a_column_name_that_is_not_utf8_is_damage_and_one_line(tmp_path):
    path = written(tmp_path / "a.parquet", pa.table({"name": [1]}), store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xe4me"))
    with pytest.raises(UnreadableSourceError, match=r"cannot be read when opened: .*utf-8"):
        row_group_sizes(list_sources([str(path)], None)[0])
