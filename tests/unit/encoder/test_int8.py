"""int8: a graph that is made once, judged, and refused wherever it is not the folder's own."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoder.backends.choice import detect_hardware
from encoder.backends.fidelity import MIN_INT8_MEAN_COSINE
from encoder.backends.int8_graph import read_int8_graph
from encoder.encoder import load_encoder
from encoder.errors import BackendError, InvalidInputError, ModelLoadError, SpaceMismatchError
from encoder.model.description import describe_model
from encoder.model.folder import (
    INT8_FILES,
    INT8_GRAPH_FILE,
    INT8_RECORD_FILE,
    INT8_WEIGHTS_FILE,
)
from encoder.model.int8_record import graph_sha256, read_int8_record
from encoder.model.mirror import mirror
from encoder.quantization import LEAST_TEXTS, QuantizedModel, quantize_model
from encoder.settings import EncoderSettings
from encoder.space import Role
from encoder.tokenizer import Tokenized, Tokenizer

LEAST_COSINE = 0.98 if detect_hardware().cpu_bfloat16 else 0.95
"""Who has bfloat16 has VNNI, without which products of 8 bits saturate at 16: 0.973 was seen."""
WORDS = ["time", "water", "history", "science", "market", "light", "river", "north", "seven"]


def texts(count: int) -> list[str]:
    generator = np.random.default_rng(3)
    return [
        " ".join(generator.choice(WORDS, length)) for length in generator.integers(2, 60, count)
    ]


def tokenized(model: Path, count: int = LEAST_TEXTS) -> Tokenized:
    return Tokenizer(model / "tokenizer.json", 128).tokenize(texts(count))


def settings(model: Path, **more: Any) -> EncoderSettings:
    return EncoderSettings(model=str(model), num_threads=1, **more)


@pytest.fixture(scope="module")
def quantized(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, QuantizedModel]:
    folder = tmp_path_factory.mktemp("int8") / "model"
    return folder, quantize_model(settings(tiny_model), tokenized(tiny_model, 60), str(folder))


@pytest.fixture
def copy(quantized: tuple[Path, QuantizedModel], tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantized[0], tmp_path / "copy"))


# Made


def test_the_mirror_holds_the_graph_and_a_record_of_how_it_was_made(
    quantized: tuple[Path, QuantizedModel], tiny_model: Path
) -> None:
    folder, made = quantized
    record = read_int8_record(folder)
    assert record == made.record
    assert (record.calibration_texts, record.held_out_texts) == (45, 15)
    assert record.graph_sha256 == graph_sha256(folder)
    assert record.weights_sha256 == made.space.weights_sha256
    assert LEAST_COSINE < record.min_cosine <= record.mean_cosine < 1
    assert set(record.versions) == {"openvino", "nncf"}
    assert made.space == describe_model(settings(tiny_model)).space


def test_its_weights_take_a_byte_each(quantized: tuple[Path, QuantizedModel]) -> None:
    graph_bytes = (quantized[0] / INT8_WEIGHTS_FILE).stat().st_size
    assert 1 <= graph_bytes / quantized[1].record.n_weights < 1.3


def test_the_record_is_written_last_and_after_the_models_own_files(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_nncf_work: None
) -> None:
    from encoder.model.destination import ModelDestination

    written: list[str] = []
    write = ModelDestination.write

    def watch(self: ModelDestination, local: Path, relative: str) -> None:
        written.append(relative)
        write(self, local, relative)

    monkeypatch.setattr(ModelDestination, "write", watch)
    quantize_model(settings(tiny_model), tokenized(tiny_model), str(tmp_path / "m"))
    assert written[-3:] == [*INT8_FILES]
    assert "model.safetensors" in written[:-3]
    assert INT8_FILES[-1] == INT8_RECORD_FILE


def test_nothing_of_nncf_reaches_the_output_and_its_telemetry_is_never_loaded(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    levels = [handler.level for handler in logging.root.handlers]
    quantize_model(settings(tiny_model), tokenized(tiny_model), str(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert [handler.level for handler in logging.root.handlers] == levels
    assert "openvino_telemetry" not in sys.modules
    assert logging.getLoggerClass() is logging.Logger


@pytest.fixture
def without_nncf_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantizing leaves the graph as it is: what surrounds it is looked at."""
    monkeypatch.setattr("encoder.quantization.calibrate", lambda model, batches: model)


@pytest.mark.parametrize(("pooling", "outputs"), [("cls", 2), ("mean", 1)])
def test_a_graph_has_cls_alone_besides_where_documents_are_pooled_by_it(
    tiny_model: Path, tmp_path: Path, without_nncf_work: None, pooling: str, outputs: int
) -> None:
    asked = settings(tiny_model, document_pooling=pooling)
    quantize_model(asked, tokenized(tiny_model), str(tmp_path / "m"))
    model = read_int8_graph(tmp_path / "m", dimension=1, pad_token_id=0, n_weights=1)
    assert len(model.graph.outputs) == outputs
    assert (model.cls_only is None) == (outputs == 1)


def test_a_graph_that_is_far_from_float32_is_written_nowhere(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_nncf_work: None
) -> None:
    monkeypatch.setattr("encoder.quantization.MIN_INT8_MEAN_COSINE", 1.1)
    with pytest.raises(BackendError, match="nothing was written: this model does not bear int8"):
        quantize_model(settings(tiny_model), tokenized(tiny_model), str(tmp_path / "m"))
    assert not (tmp_path / "m").exists()


def test_too_few_texts_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    sample = tokenized(tiny_model, LEAST_TEXTS - 1)
    with pytest.raises(InvalidInputError, match="at least 32 texts to calibrate on, found 31"):
        quantize_model(settings(tiny_model), sample, str(tmp_path))


def test_nncf_that_is_not_installed_says_how_to_install_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'twofold\[int8\]'"):
        quantize_model(settings(tiny_model), tokenized(tiny_model), str(tmp_path))


def test_a_mirror_gains_the_graph_and_keeps_its_files(
    tiny_model: Path, tmp_path: Path, without_nncf_work: None
) -> None:
    mirror(settings(tiny_model), str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    quantize_model(settings(tiny_model), tokenized(tiny_model), str(tmp_path))
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: after[name] for name in after if name not in INT8_FILES} == before
    assert set(INT8_FILES) < set(after)


def test_a_second_graph_is_refused_at_the_destination_and_of_a_quantized_model(
    copy: Path, tiny_model: Path, tmp_path: Path
) -> None:
    sample = tokenized(tiny_model)
    with pytest.raises(InvalidInputError, match="has an int8 graph already, and nothing is over"):
        quantize_model(settings(tiny_model), sample, str(copy))
    with pytest.raises(InvalidInputError, match="`twofold pull` copies it"):
        quantize_model(settings(copy), sample, str(tmp_path / "other"))


def test_files_of_a_graph_without_a_record_are_left_by_an_interrupted_run_and_replaced(
    copy: Path, tiny_model: Path, without_nncf_work: None
) -> None:
    (copy / INT8_RECORD_FILE).unlink()
    (copy / INT8_WEIGHTS_FILE).write_bytes(b"of another calibration")
    quantize_model(settings(tiny_model), tokenized(tiny_model), str(copy))
    assert graph_sha256(copy) == read_int8_record(copy).graph_sha256


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_with_another_models_files_is_refused_before_any_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_text("{}")
    monkeypatch.setattr("encoder.quantization.load_pooled_model", None)
    with pytest.raises(InvalidInputError, match=f"holds another {name} than the model's"):
        quantize_model(settings(tiny_model), tokenized(tiny_model), str(tmp_path))


def test_a_mirror_of_another_space_is_refused_before_any_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(settings(tiny_model, max_seq_length=50), str(tmp_path))
    monkeypatch.setattr("encoder.quantization.load_pooled_model", None)
    with pytest.raises(SpaceMismatchError, match="max_seq_length: mirror 50, here 128"):
        quantize_model(settings(tiny_model), tokenized(tiny_model), str(tmp_path))


# Run


@pytest.mark.parametrize("role", list(Role))
def test_it_runs_when_asked_for_with_vectors_near_float32_in_the_same_space(
    quantized: tuple[Path, QuantizedModel], role: Role
) -> None:
    exact = load_encoder(settings(quantized[0], dtype="float32"))
    reduced = load_encoder(settings(quantized[0], dtype="int8"))
    cosines = (reduced.encode(texts(40), role).vectors * exact.encode(texts(40), role).vectors).sum(
        axis=1
    )
    assert cosines.min() > LEAST_COSINE
    assert reduced.space == exact.space
    for encoder in (exact, reduced):
        encoder.close()


def test_its_distance_from_float32_on_this_machine_is_said_beside_what_is_recorded(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    record = read_int8_record(copy)

    load_encoder(settings(copy, dtype="int8")).close()

    (said,) = [r for r in caplog.records if r.name == "encoder.backends.select"]
    assert str(record.mean_cosine) in said.getMessage()
    (found,) = re.findall(r"mean cosine (?:to float32 )?(0\.\d{5})", said.getMessage())
    assert LEAST_COSINE < float(found) < 1
    assert said.levelname == ("INFO" if float(found) >= MIN_INT8_MEAN_COSINE else "WARNING")


def test_a_graph_that_is_worse_on_this_machine_than_it_may_be_is_warned_of(
    copy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoder.backends.select.MIN_INT8_MEAN_COSINE", 0.99999)

    load_encoder(settings(copy, dtype="int8")).close()

    assert "int8 is less close to float32 on this machine than it must be" in caplog.text


def test_its_provenance_names_the_graph(quantized: tuple[Path, QuantizedModel]) -> None:
    encoder = load_encoder(settings(quantized[0], dtype="int8"))
    described = describe_model(settings(quantized[0], dtype="int8"))
    expected = quantized[1].record.graph_sha256
    assert (encoder.provenance["backend"], encoder.provenance["dtype"]) == ("openvino", "int8")
    assert encoder.provenance["int8_graph"] == described.provenance["int8_graph"] == expected
    encoder.close()


def test_other_precisions_of_the_folder_say_nothing_of_the_graph(
    quantized: tuple[Path, QuantizedModel],
) -> None:
    encoder = load_encoder(settings(quantized[0]))
    assert encoder.provenance["dtype"] != "int8"
    assert "int8_graph" not in encoder.provenance
    encoder.close()


def test_single_texts_have_the_vectors_that_they_have_among_others(
    quantized: tuple[Path, QuantizedModel],
) -> None:
    encoder = load_encoder(settings(quantized[0], dtype="int8"))
    among_others = encoder.encode_queries(texts(20))
    encoder.expect_short_texts()
    assert encoder._backend._single, "no graph of one text alone: the test shows nothing"
    alone = np.concatenate([encoder.encode_queries([text]) for text in texts(20)])
    assert (among_others * alone).sum(axis=1).min() > 0.999
    encoder.close()


def test_a_mirror_of_it_runs_the_same_graph(copy: Path, tmp_path: Path) -> None:
    mirror(settings(copy), str(tmp_path / "mirror"))
    assert graph_sha256(tmp_path / "mirror") == graph_sha256(copy)
    assert read_int8_record(tmp_path / "mirror") == read_int8_record(copy)


def test_a_mirror_from_before_gains_the_graph_when_it_is_made_again(
    copy: Path, tiny_model: Path, tmp_path: Path
) -> None:
    destination = tmp_path / "mirror"
    mirror(settings(tiny_model), str(destination))
    assert mirror(settings(copy), str(destination)).copied == INT8_FILES
    assert graph_sha256(destination) == read_int8_record(destination).graph_sha256
    assert mirror(settings(copy), str(destination)).copied == ()


# Refused


def change_record(folder: Path, **fields: object) -> None:
    path = folder / INT8_RECORD_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no record": (
        lambda folder: (folder / INT8_RECORD_FILE).unlink(),
        r"dtype int8 needs openvino_int8\.json .* found none .* `twofold quantize",
    ),
    "no record's JSON": (
        lambda folder: (folder / INT8_RECORD_FILE).write_text("{"),
        "expected a record of this version of twofold .* quantize the model again",
    ),
    "another format": (
        lambda folder: change_record(folder, format=2),
        "expected format 1, found 2",
    ),
    "no weights of the graph": (
        lambda folder: (folder / INT8_WEIGHTS_FILE).unlink(),
        r"openvino_int8\.bin cannot be read .* copy the model again",
    ),
    "other bytes": (
        lambda folder: (folder / INT8_WEIGHTS_FILE).write_bytes(b"\0" * 100),
        "expected sha256 .* the copy is damaged",
    ),
    "other weights": (
        lambda folder: change_record(folder, weights_sha256="f" * 64),
        "expected a graph made of the folder's weights .* quantize this model again",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_without_its_own_whole_graph_is_refused_with_what_to_do(
    copy: Path, damage: str
) -> None:
    act, message = DAMAGES[damage]
    act(copy)
    with pytest.raises(ModelLoadError, match=message) as raised:
        load_encoder(settings(copy, dtype="int8"))
    assert "\n" not in str(raised.value)


def test_a_graph_that_openvino_cannot_read_is_refused(copy: Path) -> None:
    (copy / INT8_GRAPH_FILE).write_text("<net/>")
    change_record(copy, graph_sha256=graph_sha256(copy))
    with pytest.raises(ModelLoadError, match=r"expected a graph that openvino \S+ reads, found"):
        load_encoder(settings(copy, dtype="int8"))
