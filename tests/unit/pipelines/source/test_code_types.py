"""Columns of types that registered code reads: never a value of them is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoder.errors import InvalidInputError
from pipelines.corpus.ids import find_duplicate_ids
from pipelines.corpus.shard_file import ShardFile
from pipelines.corpus.shards import DATA, ShardName
from pipelines.errors import CorpusError
from pipelines.source.arrow_values import runs_code
from pipelines.source.column_inference import infer_columns
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.documents import read_documents
from pipelines.source.plan import plan_units
from pipelines.source.sources import list_sources
from pipelines.storage import Storage


class Touching(pa.ExtensionType):
    """Stored as a path, which looking at a value creates: as Ray Data's type unpickles."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "test.touching")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Touching:
        return cls()

    def __arrow_ext_scalar_class__(self) -> type[TouchingScalar]:
        return TouchingScalar


class TouchingScalar(pa.ExtensionScalar):
    def as_py(self, **options: object) -> str:
        Path(self.value.as_py()).touch()
        return "code ran"


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    pa.register_extension_type(Touching())
    yield
    pa.unregister_extension_type("test.touching")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code ran"


def touching(marker: Path, rows: int) -> pa.Array:
    return pa.ExtensionArray.from_storage(Touching(), pa.array([str(marker)] * rows))


@pytest.fixture
def file(tmp_path: Path, marker: Path) -> Path:
    """A file whose second row is rejected, which names its id."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": touching(marker, 2), "text": ["a", None]}), path)
    return path


def test_the_type_of_the_tests_runs_code_where_a_value_is_looked_at(file, marker):
    assert pq.read_table(file)["id"].to_pylist() == ["code ran"] * 2
    assert marker.exists()


@pytest.mark.parametrize(
    "data_type",
    [
        Touching(),
        pa.list_(Touching()),
        pa.list_(pa.list_(Touching(), 2)),
        pa.struct([("a", pa.int64()), ("b", Touching())]),
        pa.map_(pa.string(), Touching()),
        pa.dictionary(pa.int32(), Touching()),
    ],
    ids=str,
)
def test_a_type_that_holds_one_made_by_code_is_known(data_type):
    assert runs_code(data_type)


@pytest.mark.parametrize(
    "data_type",
    [
        pa.string(),
        pa.map_(pa.string(), pa.list_(pa.struct([("a", pa.int64())]))),
        pa.dictionary(pa.int32(), pa.string()),
        pa.uuid(),
        pa.list_(pa.fixed_shape_tensor(pa.float32(), [2])),
    ],
    ids=str,
)
def test_arrows_own_types_run_no_code(data_type):
    assert not runs_code(data_type)


def test_a_file_with_such_an_id_is_refused_before_anything_is_planned(file, marker):
    with pytest.raises(InvalidInputError, match=r"a\.parquet.*'id', found extension<test\.touch"):
        infer_columns(
            list_sources([str(file)], None), id_column="id", text_columns=("text",), pass_through=[]
        )
    assert not marker.exists()


@pytest.mark.parametrize("pinned", [pa.string(), Touching()], ids=str)
def test_a_file_with_such_an_id_is_refused_whatever_the_corpus_has(file, marker, pinned):
    columns = CorpusColumns("id", ("text",), pa.schema([("id", pinned)]))
    (unit,) = plan_units(
        list_sources([str(file)], None), unit_bytes=1000, tolerate_unreadable=False
    )
    with pytest.raises(InvalidInputError, match=r"a\.parquet.*'id', found extension<test\.touch"):
        list(read_documents(unit, columns))
    assert not marker.exists()


def test_such_a_column_that_is_not_carried_does_no_harm(tmp_path, marker):
    table = pa.table({"id": ["1", "2"], "text": ["a", None], "other": touching(marker, 2)})
    pq.write_table(table, tmp_path / "a.parquet")
    sources = list_sources([str(tmp_path)], None)
    columns = infer_columns(sources, id_column="id", text_columns=("text",), pass_through=[])
    (unit,) = plan_units(sources, unit_bytes=1000, tolerate_unreadable=False)
    (batch,) = read_documents(unit, columns)
    assert (batch.texts, [reject.id for reject in batch.rejects]) == (["a"], ["2"])
    assert not marker.exists()


@pytest.fixture
def shard(tmp_path: Path, marker: Path) -> tuple[Storage, ShardName]:
    storage, name = Storage(str(tmp_path / "out")), ShardName("a" * 32, 0, last=True)
    table = pa.table({"id": touching(marker, 2), "chunk_index": pa.array([0, 0], pa.int32())})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.create(f"{DATA}/{name}", sink.getvalue().to_pybytes())
    return storage, name


def test_ids_of_a_shard_of_such_a_type_are_not_compared(shard, marker):
    storage, name = shard
    with pytest.raises(CorpusError, match=f"{name} is not readable: .*extension<test.touching"):
        find_duplicate_ids(storage, [name], id_column="id", rows=2)
    assert not marker.exists()


@pytest.mark.parametrize("columns", [["id"], None])
def test_rows_of_a_shard_with_such_a_column_are_not_read(shard, columns):
    with ShardFile(*shard) as file, pytest.raises(CorpusError, match="'id', found extension<test"):
        next(file.batches(columns, batch_rows=10))


def test_other_columns_of_such_a_shard_are_read(shard):
    with ShardFile(*shard) as file:
        (batch,) = file.batches(["chunk_index"], batch_rows=10)
    assert batch.num_rows == 2
