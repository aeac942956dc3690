"""`twofold export` as it is typed: real MiniLM, NoInstruct's architecture, a real S3 store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import twofold
from encoder.backends.fidelity import lowest_cosine
from encoder.encoder import load_encoder
from encoder.model.description import describe_model
from encoder.settings import EncoderSettings
from encoder.space import Pooling, Role

if TYPE_CHECKING:
    from support.s3_store import S3Store

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ASYMMETRIC = {"query_pooling": Pooling.MEAN, "document_pooling": Pooling.CLS}
FLAGS = ("--query-pooling", "mean", "--document-pooling", "cls")
TEXTS = [
    "how do I read a csv file",
    "The csv module implements classes to read and write tabular data in CSV format.",
    "Café naïve 東京",
    "a text that is longer than the model reads, so that it is cut " * 60,
]


@pytest.mark.parametrize("fixture", ["minilm", "noinstruct_model"])
def test_sentence_transformers_gives_our_float32_vectors_for_both_roles(
    fixture: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = pytest.importorskip("sentence_transformers")
    model = str(request.getfixturevalue(fixture))
    output = str(tmp_path / "out")
    command = ["export", "sentence-transformers", "--model", model, "--output", output, *FLAGS]
    assert twofold.main(command) == 0
    said = capsys.readouterr().out

    settings = EncoderSettings(model=model, backend="torch", dtype="float32", **ASYMMETRIC)
    space = describe_model(settings).space
    assert describe_model(EncoderSettings(model=output)).space == space
    assert space.fingerprint in said

    loaded = package.SentenceTransformer(output, device="cpu")
    encoder = load_encoder(settings)
    queries, documents = (encoder.encode(TEXTS, role).vectors for role in Role)
    encoder.close()
    assert lowest_cosine(loaded.encode_query(TEXTS), queries) >= 0.99999
    assert lowest_cosine(loaded.encode_document(TEXTS), documents) >= 0.99999
    assert lowest_cosine(queries, documents) < 0.95


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_graph_of_minilm_passes_the_bar_and_is_refused_a_second_time(
    name: str, minilm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", name, "--model", minilm, "--output", str(tmp_path / "out"), *FLAGS]
    assert twofold.main(command) == 0
    assert "min cosine" in capsys.readouterr().out
    assert twofold.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected an empty folder as --output" in line


def test_an_export_in_s3_is_a_model_reference(
    s3_store: S3Store, tiny_model: Path, capsys: pytest.CaptureFixture[str], fresh_clients: None
) -> None:
    pytest.importorskip("sentence_transformers")
    uri = f"{s3_store.fresh_prefix()}/exported"
    command = ["export", "sentence-transformers", "--model", str(tiny_model), "--output", uri]
    assert twofold.main(command) == 0
    exported = describe_model(EncoderSettings(model=uri)).space
    assert exported == describe_model(EncoderSettings(model=str(tiny_model))).space
    assert twofold.main(command) == 2
    assert f"files in {uri}" in capsys.readouterr().err


def test_a_format_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[Any]) -> None:
    assert twofold.main(["export", "gguf", "--output", "x"]) == 2
    assert "sentence-transformers, onnx, openvino" in capsys.readouterr().err
