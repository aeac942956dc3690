"""Sentence Transformers folders: what plain sentence-transformers makes of them, and our reader."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoder.backends.fidelity import lowest_cosine
from encoder.encoder import load_encoder
from encoder.errors import BackendError, InvalidInputError
from encoder.export.export import export_model
from encoder.export.sentence_transformers_format import SentenceTransformersFormat
from encoder.model.description import describe_model
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace, Pooling, Role

TEXTS = ["how do I sort a list?", "one", "read a file and count its words, line by line " * 20]
ASYMMETRIC = {"query_pooling": Pooling.MEAN, "document_pooling": Pooling.CLS}


@pytest.fixture(scope="module")
def st() -> Any:
    return pytest.importorskip("sentence_transformers")


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder that names no model and says nothing of its pooling."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": ""}))
    return folder


def _export(model: Path, output: Path, **settings: Any) -> EmbeddingSpace:
    asked = EncoderSettings(model=str(model), **{**ASYMMETRIC, **settings})
    return export_model(asked, str(output), SentenceTransformersFormat()).space


def _vectors(folder: Path, role: Role, **settings: Any) -> np.ndarray:
    encoder = load_encoder(
        EncoderSettings(
            model=str(folder), backend="torch", dtype="float32", **{**ASYMMETRIC, **settings}
        )
    )
    vectors = encoder.encode(TEXTS, role).vectors
    encoder.close()
    return vectors


CASES = [
    pytest.param({}, id="mean and cls"),
    pytest.param({"query_pooling": Pooling.CLS}, id="cls for both"),
    pytest.param({"query_pooling": Pooling.CLS, "document_pooling": Pooling.MEAN}, id="swapped"),
    pytest.param(
        {"query_prompt": "query: ", "document_prompt": "passage: ", "max_seq_length": 40},
        id="prompts, 40 tokens",
    ),
    pytest.param({"normalize": False}, id="not normalized"),
    pytest.param({"truncate_dim": 16}, id="16 dimensions"),
]


@pytest.mark.parametrize("settings", CASES)
def test_a_folder_loads_without_code_and_gives_our_vectors_and_our_space(
    st: Any, model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    space = _export(model, tmp_path / "out", **settings)

    loaded = st.SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=False)
    query, document = (_vectors(model, role, **settings) for role in Role)
    assert (lowest_cosine(query, document) < 0.99) is (space.query != space.document)
    assert lowest_cosine(loaded.encode_query(TEXTS), query) >= 0.99999
    assert lowest_cosine(loaded.encode_document(TEXTS), document) >= 0.99999
    assert lowest_cosine(loaded.encode(TEXTS), document) >= 0.99999
    if "truncate_dim" not in settings:
        np.testing.assert_allclose(loaded.encode_query(TEXTS), query, atol=1e-4)

    assert describe_model(EncoderSettings(model=str(tmp_path / "out"))).space == space


@pytest.mark.parametrize("settings", CASES)
def test_our_reader_understands_the_folder_without_the_record(
    st: Any, model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    space = _export(model, tmp_path / "out", **settings)
    (tmp_path / "out/embedding_space.json").unlink()
    # A missing Normalize is no normalize=False: see encoder.model.sentence_transformers_files.
    said = {key: value for key, value in settings.items() if key == "normalize"}
    assert describe_model(EncoderSettings(model=str(tmp_path / "out"), **said)).space == space


def test_weights_and_tokenizer_are_there_once_and_byte_for_byte(
    st: Any, model: Path, tmp_path: Path
) -> None:
    _export(model, tmp_path / "out")
    (weights,) = (tmp_path / "out").rglob("*.safetensors")
    assert weights.read_bytes() == (model / "model.safetensors").read_bytes()
    (tokenizer,) = (tmp_path / "out").rglob("tokenizer.json")
    assert tokenizer.read_bytes() == (model / "tokenizer.json").read_bytes()


def _kinds(folder: Path) -> list[str]:
    modules = json.loads((folder / "modules.json").read_text())
    return [module["type"].rpartition(".")[2] for module in modules]


def test_only_an_asymmetric_model_has_a_router(st: Any, model: Path, tmp_path: Path) -> None:
    _export(model, tmp_path / "two")
    assert _kinds(tmp_path / "two") == ["Transformer", "Router", "Normalize"]
    _export(model, tmp_path / "one", query_pooling=Pooling.CLS, normalize=False)
    assert _kinds(tmp_path / "one") == ["Transformer", "Pooling"]


def test_the_readme_says_which_version_the_folder_needs(
    st: Any, model: Path, tmp_path: Path
) -> None:
    _export(model, tmp_path / "both")
    _export(model, tmp_path / "one", query_pooling=Pooling.CLS)
    both, one = ((tmp_path / name / "README.md").read_text() for name in ("both", "one"))
    assert "Needs sentence-transformers 5 or later, whose `Router` pools" in both
    assert "Needs sentence-transformers 5 or later, for `encode_query`" in one


def test_what_sentence_transformers_saves_again_is_read_too(
    st: Any, model: Path, tmp_path: Path
) -> None:
    space = _export(model, tmp_path / "out", max_seq_length=40, query_prompt="q: ")
    loaded = st.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    loaded.save(str(tmp_path / "again"), create_model_card=False)
    again = describe_model(EncoderSettings(model=str(tmp_path / "again"))).space
    assert (again.query, again.document) == (space.query, space.document)
    assert (again.max_seq_length, again.dimension) == (40, 32)


def test_a_folder_that_gives_other_vectors_is_not_left_behind(
    st: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_query = st.SentenceTransformer.encode_document
    monkeypatch.setattr(st.SentenceTransformer, "encode_query", encode_query)
    with pytest.raises(BackendError, match="nothing was written"):
        _export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_says_how_to_install_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InvalidInputError, match=r"twofold\[export\]"):
        _export(model, tmp_path / "out")
