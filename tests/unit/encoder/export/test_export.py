"""Writing an export: only what passed, into an empty folder, the same space beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from encoder.errors import BackendError, InvalidInputError, ModelLoadError
from encoder.export.export import ExportedModel, export_model
from encoder.export.fidelity import Fidelity, require_fidelity
from encoder.model.declarations import parse_space_file
from encoder.model.description import ModelDescription, describe_model
from encoder.settings import EncoderSettings


class OneFile:
    """A format of one small file, whose check finds what it is told."""

    name = "One file"
    keeps_weights = False

    def __init__(self, min_cosine: float = 1.0) -> None:
        self._min_cosine = min_cosine

    def write(self, model: ModelDescription, folder: Path) -> Fidelity | None:
        assert (folder / "config.json").is_file()
        (folder / "graph.bin").write_bytes(b"graph")
        return require_fidelity("graph.bin", Fidelity(self._min_cosine, "runtime 1", 9))

    def usage(self, model: ModelDescription) -> str:
        return "Read graph.bin."


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """An empty in-memory object store."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder with more in it than a format needs."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "README.md").write_text("# The model's card")
    (folder / "LICENSE").write_text("MIT")
    (folder / "notes.txt").write_text("private")
    (folder / "pytorch_model.bin").write_text("pickle")
    return folder


def _export(model: Path, output: object, min_cosine: float = 1.0) -> ExportedModel:
    return export_model(EncoderSettings(model=str(model)), str(output), OneFile(min_cosine))


def test_an_export_holds_its_files_the_tokenizer_and_the_record(
    model: Path, tmp_path: Path
) -> None:
    exported = _export(model, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "graph.bin",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "LICENSE",
        "MODEL_CARD.md",
        "README.md",
        "embedding_space.json",
    }
    assert names == set(exported.written)
    for name in ("tokenizer.json", "config.json", "LICENSE"):
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes()
        assert not (tmp_path / "out" / name).is_symlink()


def test_the_record_is_the_model_s_space(model: Path, tmp_path: Path) -> None:
    exported = _export(model, tmp_path / "out")
    record = parse_space_file((tmp_path / "out/embedding_space.json").read_bytes(), "record")
    assert record == exported.space == describe_model(EncoderSettings(model=str(model))).space


def test_the_readme_says_the_roles_the_space_and_what_was_checked(
    model: Path, tmp_path: Path
) -> None:
    exported = _export(model, tmp_path / "out", 0.9999975)
    readme = (tmp_path / "out/README.md").read_text()
    assert exported.space.fingerprint in readme
    assert "| query | mean | none |" in readme
    assert "| document | cls | none |" in readme
    assert "min cosine 0.9999975" in readme
    assert "Read graph.bin." in readme


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/theirs.txt").write_text("theirs")
    with pytest.raises(InvalidInputError, match=r"found 1 files in .*theirs\.txt.*folder$"):
        _export(model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs.txt"]


@pytest.mark.parametrize(
    ("record_is_there", "advice"),
    [
        (True, "give another folder$"),
        (False, "give another folder, or delete it if an interrupted export left it$"),
    ],
)
def test_what_an_interrupted_export_left_may_be_deleted_and_a_finished_one_is_not_offered(
    model: Path, tmp_path: Path, record_is_there: bool, advice: str
) -> None:
    exported = _export(model, tmp_path / "out")
    if not record_is_there:
        (tmp_path / "out" / exported.written[-1]).unlink()
    with pytest.raises(InvalidInputError, match=advice):
        _export(model, tmp_path / "out")


def test_a_destination_is_looked_at_before_the_model_is(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").touch()
    with pytest.raises(InvalidInputError, match="empty folder"):
        _export(tmp_path / "no-model", tmp_path)


def test_a_file_as_destination_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("theirs")
    with pytest.raises(InvalidInputError, match="is a file, expected a folder"):
        _export(model, tmp_path / "out")


def test_an_export_that_fails_its_check_leaves_nothing(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="nothing was written"):
        _export(model, tmp_path / "out", 0.99998)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no-model"):
        _export(tmp_path / "no-model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_object_store_is_written_to_with_the_record_last(
    bucket: fsspec.AbstractFileSystem, model: Path
) -> None:
    exported = _export(model, "memory://bucket/out")
    found = {path.removeprefix("/bucket/out/") for path in bucket.find("/bucket/out")}
    assert found == set(exported.written)
    assert exported.written[-1] == "embedding_space.json"
    with pytest.raises(InvalidInputError, match="found 10 files in memory://bucket/out"):
        _export(model, "memory://bucket/out")
