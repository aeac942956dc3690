"""Ray Data's pickled columns, in files of a stranger: nothing in them is unpickled."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # registers its Arrow types, as in every worker

from encoder.errors import InvalidInputError
from pipelines.source.column_inference import infer_columns
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.documents import read_documents
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources

pytestmark = pytest.mark.integration


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.open, (str(self.path), os.O_CREAT)


def test_ids_that_are_pickled_objects_are_refused_by_the_driver_and_by_workers(tmp_path):
    assert ray.data.DataContext  # imported for what it registers
    marker = tmp_path / "unpickled"
    ids = pa.array([pickle.dumps(Touch(marker))] * 2, pa.large_binary())
    said = {
        "ARROW:extension:name": "ray.data.arrow_pickled_object",
        "ARROW:extension:metadata": "",
    }
    # Metadata that anybody can write, without Ray.
    schema = pa.schema([pa.field("id", ids.type, metadata=said), ("text", pa.string())])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([ids, pa.array(["a", None])], schema=schema), path)

    sources = list_sources([str(path)], None)
    with pytest.raises(InvalidInputError, match=r"'id', found extension<ray\.data\.arrow_pick"):
        infer_columns(sources, id_column="id", text_columns=("text",), pass_through=[])
    # A driver that has not imported Ray Data sees plain bytes.
    columns = CorpusColumns("id", ("text",), pa.schema([("id", pa.large_binary())]))
    (unit,) = plan_units(sources, unit_bytes=10**6, tolerate_unreadable=False)
    with pytest.raises(InvalidInputError, match=r"'id', found extension<ray\.data\.arrow_pick"):
        list(read_documents(unit, columns))
    assert not marker.exists()
    assert pq.read_table(path)["id"].to_pylist()
    assert marker.exists()
