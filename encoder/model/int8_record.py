"""What is known of a model's int8 graph: `openvino_int8.json` in the model's folder.

`twofold quantize` writes it last: a folder that has it has the graph. Every worker reads the same
graph, because two calibrations give two slightly different sets of vectors; so its digest stands
in the provenance of every shard. Knows nothing of OpenVINO: `encoder.backends.int8_graph` does.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from encoder.errors import ModelLoadError, one_line
from encoder.model.folder import INT8_GRAPH_FILE, INT8_RECORD_FILE, INT8_WEIGHTS_FILE

__all__ = ["Int8Record", "graph_sha256", "read_int8_record"]

_FORMAT = 1
_BLOCK_BYTES = 1 << 20


class Int8Record(BaseModel):
    """The content of `openvino_int8.json`.

    Attributes:
        format: Of this record.
        graph_sha256: Of the graph's two files, the .xml first, one behind the other.
        weights_sha256: Of the weights that were quantized, as in the embedding space.
        dimension: Hidden size H of the vectors that come out.
        pad_token_id: What the model expects in padding.
        n_weights: Numbers in its weights.
        calibration_texts: Texts that it was calibrated on.
        held_out_texts: Other texts of the same corpus, on which it was compared with float32.
        mean_cosine: Of their vectors to float32, over both poolings where the roles' differ.
        min_cosine: The lowest of them.
        versions: Of openvino and nncf.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = _FORMAT
    graph_sha256: str
    weights_sha256: str
    dimension: int
    pad_token_id: int
    n_weights: int
    calibration_texts: int
    held_out_texts: int
    mean_cosine: float
    min_cosine: float
    versions: dict[str, str]


def read_int8_record(folder: Path) -> Int8Record:
    """Read the record of a model folder's int8 graph.

    Raises:
        ModelLoadError: The folder has none, or another version of twofold wrote it.
    """
    path = folder / INT8_RECORD_FILE
    try:
        record = Int8Record.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelLoadError(
            f"dtype int8 needs {INT8_RECORD_FILE} in the model's folder, found none in {folder}; "
            "make it with `twofold quantize --model REF --input DOCUMENTS --to FOLDER` and give "
            "that folder as --model, or use dtype auto"
        ) from error
    except (OSError, ValidationError) as error:
        raise ModelLoadError(
            f"expected a record of this version of twofold in {path}, found: {one_line(error)}; "
            "quantize the model again"
        ) from error
    if record.format != _FORMAT:
        raise ModelLoadError(
            f"{path}: expected format {_FORMAT}, found {record.format}; quantize the model again"
        )
    return record


def graph_sha256(folder: Path) -> str:
    """Return the sha256 of the graph's two files, the .xml first, one behind the other.

    Raises:
        ModelLoadError: One of them is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for name in (INT8_GRAPH_FILE, INT8_WEIGHTS_FILE):
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            raise ModelLoadError(
                f"{folder} has {INT8_RECORD_FILE}, but {name} cannot be read "
                f"({error.strerror}); copy the model again"
            ) from error
    return digest.hexdigest()
