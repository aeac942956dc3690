"""What a job wrote is read back by id, whatever wrote it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.job_peers.places import local_place
from benchmarks.job_peers.systems import SYSTEMS


def write(file, ids):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": ids, "embedding": [[1.0, 0.0]] * len(ids)}), file)


def test_vectors_are_read_from_below_data_and_from_the_folder_itself(tmp_path):
    with local_place(tmp_path) as place:
        write(tmp_path / "ours/data/a.parquet", ["1"])
        write(tmp_path / "theirs/a.parquet", ["1", "2"])
        assert list(place.vectors(str(tmp_path / "ours"))) == ["1"]
        assert place.vectors(str(tmp_path / "theirs"))["2"] == [1.0, 0.0]


def test_rejects_are_no_vectors(tmp_path):
    with local_place(tmp_path) as place:
        write(tmp_path / "ours/_rejects/a.parquet", ["1"])
        with pytest.raises(BenchmarkError, match=r"expected Parquet files .* found none"):
            place.vectors(str(tmp_path / "ours"))


def test_a_report_is_read_from_where_the_output_lies(tmp_path):
    with local_place(tmp_path) as place:
        (tmp_path / "ours").mkdir()
        (tmp_path / "ours/_report.json").write_text("{}")
        assert place.read(str(tmp_path / "ours"), "_report.json") == b"{}"


def test_a_machine_of_few_cores_has_one_actor_and_a_process_for_each():
    workers = {
        system.name: max(1, 2 // system.threads_a_worker) for system in SYSTEMS if system.script
    }
    assert workers == {"ray-data": 1, "multi-process": 2}
