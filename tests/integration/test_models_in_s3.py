"""Models in a real S3 store: mirrored there, loaded from there, and what its refusals say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

from encoder.errors import ModelLoadError, StorageError
from encoder.model.declared_space import load_space
from encoder.model.files import read_model_files
from encoder.model.mirror import mirror
from encoder.model.reference import ModelReference, resolve
from encoder.settings import EncoderSettings

if TYPE_CHECKING:
    from support.s3_store import S3Store

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _fresh_clients() -> None:
    """Forget clients made with other credentials: fsspec keeps them by their arguments."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_model_mirrored_to_s3_loads_as_the_same_space(
    s3_store: S3Store, tiny_model: Path, tmp_path: Path
) -> None:
    uri = f"{s3_store.fresh_prefix()}/tiny"
    mirrored = mirror(EncoderSettings(model=str(tiny_model)), uri)
    assert mirror(EncoderSettings(model=str(tiny_model)), uri).copied == ()
    reference = ModelReference.parse(uri)
    first = resolve(reference, tmp_path).folder
    space = load_space(read_model_files(first), EncoderSettings(model=uri), reference)
    assert space.fingerprint == mirrored.space.fingerprint
    assert resolve(reference, tmp_path).folder == first


def test_a_bucket_or_folder_that_is_not_there_is_said(s3_store: S3Store, tmp_path: Path) -> None:
    for uri in (f"{s3_store.fresh_prefix()}/nothing", "s3://no-such-bucket/model"):
        with pytest.raises(ModelLoadError, match=uri) as caught:
            resolve(ModelReference.parse(uri), tmp_path)
        assert "\n" not in str(caught.value)


def test_wrong_credentials_are_called_so(
    s3_store: S3Store,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fresh_clients: None,
) -> None:
    uri = f"{s3_store.fresh_prefix()}/secret"
    mirror(EncoderSettings(model=str(tiny_model)), uri)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ModelLoadError, match=r"check .* the credentials"):
        resolve(ModelReference.parse(uri), tmp_path)
    with pytest.raises(StorageError, match="credentials"):
        mirror(EncoderSettings(model=str(tiny_model)), f"{s3_store.fresh_prefix()}/other")
