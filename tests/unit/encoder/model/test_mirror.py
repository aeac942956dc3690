"""Mirrors: the same space from another place, and nothing overwritten on the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest

from encoder.errors import InvalidInputError, ModelLoadError, SpaceMismatchError, StorageError
from encoder.model.declared_space import load_space
from encoder.model.destination import ModelDestination
from encoder.model.files import read_model_files
from encoder.model.mirror import mirror
from encoder.model.reference import ModelReference, resolve
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace, Pooling


@pytest.fixture
def bucket() -> Any:
    """An empty in-memory object store."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


def _space(reference: str, cache_dir: Path | None = None) -> EmbeddingSpace:
    parsed = ModelReference.parse(reference)
    files = read_model_files(resolve(parsed, cache_dir).folder)
    return load_space(files, EncoderSettings(model=reference), parsed)


def _mirror(model: Path | str, destination: object, **settings: Any) -> EmbeddingSpace:
    return mirror(EncoderSettings(model=str(model), **settings), str(destination)).space


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_mirror_in_a_folder_spans_the_same_space(minilm: str, tmp_path: Path) -> None:
    space = _mirror(minilm, tmp_path / "mirror")
    assert space.fingerprint == _space(minilm).fingerprint
    assert _space(str(tmp_path / "mirror")) == space
    assert _space(f"file://{tmp_path}/mirror") == space


def test_a_mirror_in_an_object_store_spans_the_same_space(
    bucket: Any, minilm: str, tmp_path: Path
) -> None:
    space = _mirror(minilm, "memory://bucket/minilm")
    assert _space("memory://bucket/minilm", tmp_path).fingerprint == space.fingerprint


def test_a_mirror_keeps_noinstruct_s_asymmetry_without_its_name(
    tiny_model: Path, tmp_path: Path
) -> None:
    _mirror(tiny_model, tmp_path / "mirror")
    config = tmp_path / "mirror/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_name_or_path": ""}))
    space = _space(str(tmp_path / "mirror"))
    assert (space.query.pooling, space.document.pooling) == (Pooling.MEAN, Pooling.CLS)


def test_the_record_names_its_source_and_is_the_first_file_the_configuration_the_last(
    bucket: Any, tiny_model: Path
) -> None:
    mirrored = mirror(EncoderSettings(model=str(tiny_model)), "memory://bucket/x")
    by_age = sorted(bucket.find("/bucket/x"), key=bucket.created)
    assert [path.rpartition("/")[2] for path in by_age] == list(mirrored.copied)
    assert mirrored.copied[0] == "embedding_space.json"
    assert mirrored.copied[-1] == "config.json"
    record = json.loads(bucket.cat_file("/bucket/x/embedding_space.json"))
    assert record["source"] == {"reference": tiny_model.name, "revision": None}
    assert EmbeddingSpace.from_json(json.dumps(record["space"])) == mirrored.space


def test_only_model_files_are_mirrored(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for name in ("pytorch_model.bin", "modeling_x.py", "notes.txt"):
        (model / name).write_text("x")
    _mirror(model, tmp_path / "mirror")
    expected = {path.name for path in tiny_model.iterdir()} | {"embedding_space.json"}
    assert set(_contents(tmp_path / "mirror")) == expected


def test_mirroring_again_does_nothing(tiny_model: Path, tmp_path: Path) -> None:
    settings = EncoderSettings(model=str(tiny_model))
    assert mirror(settings, str(tmp_path / "mirror")).copied
    before = _contents(tmp_path / "mirror")
    assert mirror(settings, str(tmp_path / "mirror")).copied == ()
    assert _contents(tmp_path / "mirror") == before


def test_a_configuration_that_its_source_has_changed_since_is_no_concern_of_a_whole_mirror(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    _mirror(model, tmp_path / "mirror")
    before = _contents(tmp_path / "mirror")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "transformers_version": "99"}))
    assert mirror(EncoderSettings(model=str(model)), str(tmp_path / "mirror")).copied == ()
    assert _contents(tmp_path / "mirror") == before


def test_a_mirror_of_a_mirror_is_the_same_space(tiny_model: Path, tmp_path: Path) -> None:
    first = _mirror(tiny_model, tmp_path / "a", normalize=False, max_seq_length=50)
    assert _mirror(tmp_path / "a", tmp_path / "b") == first
    assert _space(str(tmp_path / "b")).max_seq_length == 50


def test_settings_are_recorded(minilm: str, tmp_path: Path) -> None:
    _mirror(minilm, tmp_path / "m", document_pooling=Pooling.CLS, query_prompt="q: ")
    space = _space(str(tmp_path / "m"))
    assert (space.document.pooling, space.query.prompt) == (Pooling.CLS, "q: ")


def test_another_space_at_the_destination_is_refused_with_the_field_that_differs(
    minilm: str, tmp_path: Path
) -> None:
    _mirror(minilm, tmp_path / "m")
    before = _contents(tmp_path / "m")
    with pytest.raises(SpaceMismatchError, match="max_seq_length: mirror 256, here 100"):
        _mirror(minilm, tmp_path / "m", max_seq_length=100)
    assert _contents(tmp_path / "m") == before


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_another_model_at_the_destination_is_never_overwritten(
    bucket: Any, tiny_model: Path, tmp_path: Path, place: str
) -> None:
    uri = str(tmp_path / "theirs") if place == "folder" else "memory://bucket/theirs"
    fs, root = fsspec.core.url_to_fs(uri)
    # As long as ours, so that only the content tells.
    theirs = bytes((tiny_model / "model.safetensors").stat().st_size)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/model.safetensors", theirs)
    with pytest.raises(InvalidInputError, match=r"holds another model\.safetensors"):
        _mirror(tiny_model, uri)
    assert fs.find(root) == [f"{root}/model.safetensors"]
    assert fs.cat_file(f"{root}/model.safetensors") == theirs


def test_a_disk_without_hard_links_takes_a_mirror_too(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    space = _mirror(tiny_model, tmp_path / "mirror")
    assert _space(str(tmp_path / "mirror")) == space
    assert mirror(EncoderSettings(model=str(tiny_model)), str(tmp_path / "mirror")).copied == ()
    with pytest.raises(SpaceMismatchError):
        _mirror(tiny_model, tmp_path / "mirror", max_seq_length=50)


@pytest.mark.parametrize("place", ["folder", "bucket"])
@pytest.mark.parametrize("at", ["embedding_space.json", "model.safetensors", "config.json"])
def test_of_two_that_mirror_other_spaces_to_one_place_at_a_time_one_is_refused(
    bucket: Any,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    at: str,
) -> None:
    uri = str(tmp_path / "mirror") if place == "folder" else "memory://bucket/mirror"
    create, write = ModelDestination.create, ModelDestination.write
    refused, spaces = [], []

    def other() -> None:
        monkeypatch.undo()
        try:
            spaces.append(_mirror(tiny_model, uri, max_seq_length=50))
        except SpaceMismatchError as error:
            refused.append(error)

    def create_late(self: ModelDestination, relative: str, content: bytes) -> bool:
        if relative == at:
            other()
        return create(self, relative, content)

    def write_late(self: ModelDestination, local: Path, relative: str) -> None:
        if relative == at:
            other()
        write(self, local, relative)

    monkeypatch.setattr(ModelDestination, "create", create_late)
    monkeypatch.setattr(ModelDestination, "write", write_late)
    try:
        spaces.append(_mirror(tiny_model, uri, max_seq_length=60))
    except SpaceMismatchError as error:
        refused.append(error)
    assert len(refused) == 1
    assert [_space(uri, tmp_path / "cache")] == spaces


def test_an_interrupted_mirror_is_continued(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / "mirror"
    copy = shutil.copyfileobj
    left = [2]

    def break_off(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            target.write(source.read(10))
            raise OSError(28, "No space left on device")
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("encoder.whole_file.shutil.copyfileobj", break_off)
        with pytest.raises(StorageError, match=r"No space left.*; check .* the disk has space"):
            _mirror(tiny_model, destination)
    whole = _contents(destination)
    assert len(whole) == 2
    assert whole.pop("embedding_space.json")
    assert all(content == (tiny_model / name).read_bytes() for name, content in whole.items())
    copied = mirror(EncoderSettings(model=str(tiny_model)), str(destination)).copied
    assert not set(copied) & set(whole)
    assert _space(str(destination)) == _space(str(tiny_model))


@pytest.mark.parametrize("last", ["embedding_space.json", "config.json"])
def test_a_mirror_is_refused_until_it_says_its_space(
    minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Prompts that were given to `pull` stand in the record alone."""
    create = ModelDestination.create

    def killed(self: ModelDestination, relative: str, content: bytes) -> bool:
        if relative == last:
            raise KeyboardInterrupt
        return create(self, relative, content)

    with monkeypatch.context() as patch:
        patch.setattr(ModelDestination, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            _mirror(minilm, tmp_path / "mirror", query_prompt="query: ")
    with pytest.raises(ModelLoadError, match=r"no config\.json|with config\.json"):
        _space(str(tmp_path / "mirror"))
    _mirror(minilm, tmp_path / "mirror", query_prompt="query: ")
    assert _space(str(tmp_path / "mirror")).query.prompt == "query: "


def test_a_mirror_can_be_read_by_others_though_safetensors_files_are_private(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "model.safetensors").chmod(0o600)
    _mirror(model, tmp_path / "mirror")
    modes = {path.stat().st_mode for path in (tmp_path / "mirror").iterdir()}
    (tmp_path / "plain").touch()
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_a_model_that_is_refused_leaves_nothing_at_the_destination(
    tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError):
        _mirror(tiny_model, tmp_path / "mirror", truncate_dim=1000)
    assert not (tmp_path / "mirror").exists()


def test_a_broken_record_at_the_destination_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "embedding_space.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"embedding_space\.json: expected JSON"):
        _mirror(tiny_model, tmp_path)
