"""Quantizing a model: a mirror of it that also holds its graph in int8, made once for all workers.

The graph is calibrated on texts of the corpus that it is for, and judged on others of them: by the
cosine to float32, which is written into its record. A graph that is hopeless is written nowhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from encoder.backends.base import TokenBatch
from encoder.backends.choice import detect_hardware
from encoder.backends.converted_model import ConvertedModel, convert_pooled_model
from encoder.backends.fidelity import MIN_INT8_MEAN_COSINE, cosines
from encoder.backends.int8_calibration import calibrate, import_nncf
from encoder.backends.int8_graph import read_int8_graph, save_int8_graph
from encoder.backends.openvino_backend import OpenVinoBackend
from encoder.backends.pooled_model import load_pooled_model
from encoder.batching import plan_batches
from encoder.encoder import Encoder
from encoder.errors import BackendError, InvalidInputError
from encoder.model.description import ModelDescription, describe_model
from encoder.model.destination import ModelDestination, store_errors_explained
from encoder.model.folder import INT8_FILES, INT8_RECORD_FILE
from encoder.model.int8_record import Int8Record, graph_sha256
from encoder.model.mirror import files_to_mirror, mirror
from encoder.settings import EncoderSettings
from encoder.space import EmbeddingSpace, Pooling, Role
from encoder.tokenizer import Tokenized, Tokenizer

__all__ = ["LEAST_TEXTS", "QuantizedModel", "quantize_model"]

LEAST_TEXTS = 32
"""Fewer texts say neither what the ranges are nor how good the graph is."""
_HELD_OUT = 4
"""Every fourth text judges, the others calibrate."""
_BATCH_TOKENS = 1024
_SEED = 0


@dataclass(frozen=True)
class QuantizedModel:
    """What is at the destination now.

    Attributes:
        space: The embedding space: the model's own, as in every precision.
        record: How the graph was made, and how close it is to float32.
    """

    space: EmbeddingSpace
    record: Int8Record


def quantize_model(
    settings: EncoderSettings, sample: Tokenized, destination_uri: str
) -> QuantizedModel:
    """Mirror a model and add its graph in int8.

    Args:
        settings: `model` is the reference; what overrides the model's space is recorded, as by
            `encoder.model.mirror.mirror`. Backend, precision and device have no effect.
        sample: Texts of the corpus that the graph is for, drawn at random, in any order.
        destination_uri: Folder or any fsspec URI: empty, or a mirror of this very model. The files
            of a graph without a record, which an interrupted run leaves, are replaced.

    Raises:
        InvalidInputError: There are too few texts, the destination or the model has an int8 graph
            already, the destination holds other files, or NNCF is not installed.
        StorageError: The destination cannot be written.
        ModelLoadError: The model cannot be loaded, converted or quantized.
        SpaceMismatchError: The destination mirrors another embedding space.
        BackendError: In int8 the model's vectors are too far from float32; nothing was written.
    """
    if len(sample) < LEAST_TEXTS:
        raise InvalidInputError(
            f"expected at least {LEAST_TEXTS} texts to calibrate on, found {len(sample)}; give a "
            "larger --input or more --sample-documents"
        )
    import_nncf()  # Before anything that takes long.
    model = describe_model(settings)
    destination = _free_destination(model, destination_uri)
    with tempfile.TemporaryDirectory(prefix="twofold-int8-") as temporary:
        folder = Path(temporary)
        record = _make(model, sample, settings.num_threads, folder)
        (folder / INT8_RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n")
        mirror(settings, destination_uri)
        with store_errors_explained("write to", destination_uri):
            _refuse_graph(destination, destination_uri)
            for name in INT8_FILES:
                # What is there has no record: an interrupted run left it, and nobody reads it.
                destination.write(folder / name, name)
    return QuantizedModel(model.space, record)


def _free_destination(model: ModelDescription, uri: str) -> ModelDestination:
    """Return the destination; refuse early what would be refused after the work."""
    if (model.files.folder / INT8_RECORD_FILE).is_file():
        raise InvalidInputError(
            f"{model.provenance['model']} has an int8 graph already; `twofold pull` copies it, or "
            "quantize the model that it was made of"
        )
    with store_errors_explained("write to", uri):
        destination = ModelDestination(uri)
        _refuse_graph(destination, uri)
        files_to_mirror(model.files.folder, model.space, destination, uri)
    return destination


def _refuse_graph(destination: ModelDestination, uri: str) -> None:
    if INT8_RECORD_FILE in destination.file_names():
        raise InvalidInputError(
            f"{uri} has an int8 graph already, and nothing is overwritten; give another --to"
        )


def _make(
    model: ModelDescription, sample: Tokenized, num_threads: int | None, folder: Path
) -> Int8Record:
    """Write the graph into a local folder and return its record."""
    shuffled = np.random.default_rng(_SEED).permutation(len(sample))
    held_out = sample.take(shuffled[::_HELD_OUT].tolist())
    calibration = sample.take(np.delete(shuffled, np.s_[::_HELD_OUT]).tolist())
    exact = convert_pooled_model(load_pooled_model(model.files.folder))
    if model.space.document.pooling is not Pooling.CLS:
        # NNCF smooths no weights that two products share, which those of [CLS] alone would do.
        exact = replace(exact, graph=exact.pooled)
    save_int8_graph(calibrate(exact, _batches(calibration, model.space, exact)), folder)
    # Read again: what is judged is what will be run.
    quantized = read_int8_graph(
        folder,
        dimension=exact.dimension,
        pad_token_id=exact.pad_token_id,
        n_weights=exact.n_weights,
    )
    found = _cosines(model, exact, quantized, held_out, num_threads)
    mean, least = float(found.mean()), float(found.min())
    if not mean >= MIN_INT8_MEAN_COSINE:
        raise BackendError(
            "expected vectors in int8 to be close to float32 (mean cosine "
            f"{MIN_INT8_MEAN_COSINE}), found {mean:.5f} (min {least:.5f}) on {len(held_out)} "
            "texts; nothing was written: this model does not bear int8, use dtype bfloat16"
        )
    return Int8Record(
        graph_sha256=graph_sha256(folder),
        weights_sha256=model.space.weights_sha256,
        dimension=exact.dimension,
        pad_token_id=exact.pad_token_id,
        n_weights=exact.n_weights,
        calibration_texts=len(calibration),
        held_out_texts=len(held_out),
        mean_cosine=round(mean, 6),
        min_cosine=round(least, 6),
        versions={package: version(package) for package in ("openvino", "nncf")},
    )


def _batches(
    texts: Tokenized, space: EmbeddingSpace, model: ConvertedModel
) -> Sequence[TokenBatch]:
    """Return the texts as batches like those of a job, pooled in turns as the roles are."""
    pooled_by_cls = [space.role(role).pooling is Pooling.CLS for role in Role]
    is_cls = np.resize(np.array(pooled_by_cls), len(texts))  # (N,)
    return [
        TokenBatch.pad(
            [texts.input_ids[index] for index in batch.indices],
            is_cls[batch.indices],
            padded_length=batch.padded_length,
            pad_token_id=model.pad_token_id,
        )
        for batch in plan_batches(
            texts.n_tokens, max_batch_tokens=_BATCH_TOKENS, max_seq_length=space.max_seq_length
        )
    ]


def _cosines(
    model: ModelDescription,
    exact: ConvertedModel,
    quantized: ConvertedModel,
    texts: Tokenized,
    num_threads: int | None,
) -> npt.NDArray[np.float64]:
    """Return the cosine of each text to float32, (N,), or (2 N,) where the roles pool apart."""
    rest = detect_hardware().fastest_dtype("openvino", "cpu")
    with (
        _encoder(model, exact, "float32", num_threads) as reference,
        _encoder(model, quantized, rest, num_threads) as reduced,
    ):
        # One role of each pooling; the prompt is in the tokens.
        roles = {model.space.role(role).pooling: role for role in Role}.values()
        found = []
        for role in roles:
            ours = reduced.encode_tokenized(texts, role).vectors  # (N, D)
            theirs = reference.encode_tokenized(texts, role).vectors  # (N, D)
            found.append(cosines(ours, theirs))
    return np.concatenate(found)


@contextmanager
def _encoder(
    model: ModelDescription, converted: ConvertedModel, dtype: str, num_threads: int | None
) -> Iterator[Encoder]:
    """Give an encoder of a converted model, of which tokens are wanted alone."""
    backend = OpenVinoBackend(converted, dtype=dtype, num_threads=num_threads)
    tokenizer = Tokenizer(model.files.tokenizer, model.space.max_seq_length)
    encoder = Encoder(model.space, tokenizer, backend, {})
    try:
        yield encoder
    finally:
        encoder.close()
