"""Load the backend that was chosen, and prove that its precision keeps fidelity.

Whatever is not PyTorch's float32 is compared with it first, on a few texts pooled both ways. A
backend or precision that was left to us must keep the fidelity bar; a reduced precision that was
asked for must only be the same model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from encoder.backends.base import Backend, TokenBatch
from encoder.backends.choice import Choice, Hardware, choose, detect_hardware
from encoder.backends.fidelity import (
    LEAST_COSINE,
    MIN_INT8_COSINE,
    MIN_INT8_MEAN_COSINE,
    cosines,
)
from encoder.errors import ModelLoadError
from encoder.model.int8_record import read_int8_record
from encoder.settings import BackendName, EncoderSettings

if TYPE_CHECKING:
    from encoder.backends.pooled_model import PooledModel

__all__ = ["cosines_of", "open_backend"]

_logger = logging.getLogger(__name__)


def open_backend(
    folder: Path,
    settings: EncoderSettings,
    *,
    max_seq_length: int,
    probe: Sequence[TokenBatch],
    weights_sha256: str | None = None,
    hardware: Hardware | None = None,
) -> Backend:
    """Load a model's weights into the backend that suits settings and machine.

    Args:
        folder: Holds config.json and safetensors.
        settings: What is asked for.
        max_seq_length: Longest row.
        probe: Texts on which a precision that we picked must equal float32.
        weights_sha256: Of the folder's weights, which a graph in int8 must have been made of; None
            trusts that it was.
        hardware: What the machine can do; looked up unless given.

    Raises:
        ModelLoadError: The model cannot be loaded, or what is asked for cannot run here.
    """
    from encoder.backends.pooled_model import load_pooled_model

    hardware = hardware or detect_hardware()
    choice = choose(settings, hardware)
    if choice.dtype == "int8":
        backend = _open_int8(folder, settings, hardware, weights_sha256)
        reference = _reference_vectors(load_pooled_model(folder), probe)
        _judge_int8(folder, choice, cosines_of(backend, probe, reference))
        return backend
    model = load_pooled_model(folder)
    why = "no faster precision here" if choice.is_dtype_ours else "as asked"
    if _is_reference(choice):
        _log(choice, why)
        return _build(model, folder, choice, settings, max_seq_length)

    reference = _reference_vectors(model, probe)
    while not _is_reference(choice):
        backend = _build(model, folder, choice, settings, max_seq_length)
        lowest = float(cosines_of(backend, probe, reference).min(initial=1.0))
        if lowest >= _least_cosine(choice):
            asked = "" if choice.is_dtype_ours else "as asked; "
            _log(choice, f"{asked}min cosine to float32 {lowest:.5f}")
            return backend
        backend.close()
        why = f"{choice.backend} {choice.dtype} has min cosine {lowest:.5f} to float32"
        choice = _more_exact(choice, settings, why)
        # It was cast in place.
        model = load_pooled_model(folder)
    _log(choice, why)
    return _build(model, folder, choice, settings, max_seq_length)


def _least_cosine(choice: Choice) -> float:
    """Return the bar: of a reduced precision that was asked for only what tells models apart."""
    is_asked = not choice.is_dtype_ours and choice.dtype != "float32"
    return MIN_INT8_COSINE if is_asked else LEAST_COSINE[choice.dtype]


def _is_reference(choice: Choice) -> bool:
    """Whether it is what others are compared with."""
    return (choice.backend, choice.dtype) == ("torch", "float32")


def _more_exact(choice: Choice, settings: EncoderSettings, why: str) -> Choice:
    """Return what to try after a choice that has failed the probe."""
    if choice.is_dtype_ours and choice.dtype != "float32":
        return replace(choice, dtype="float32")
    if choice.backend == "openvino" and settings.backend is not BackendName.OPENVINO:
        return replace(choice, backend="torch")
    other = "backend torch or auto" if choice.backend == "openvino" else "dtype float32 or auto"
    raise ModelLoadError(f"{why}, expected {_least_cosine(choice)} at least; use {other}")


def cosines_of(
    backend: Backend, probe: Sequence[TokenBatch], reference: Sequence[npt.NDArray[np.float32]]
) -> npt.NDArray[np.float64]:
    """Return the cosines between a backend's vectors and the reference, (N,); -1 for NaN."""
    # One by one: of many together a backend may need graphs that nobody has use for yet.
    found = [
        cosines(vectors, expected)
        for batch, expected in zip(probe, reference, strict=True)
        for _, vectors in backend.forward([batch])
    ]
    return np.concatenate(found) if found else np.zeros(0)


def _reference_vectors(
    model: PooledModel, probe: Sequence[TokenBatch]
) -> list[npt.NDArray[np.float32]]:
    """Return float32 vectors of the probe, computed on the CPU before the model is cast."""
    import torch

    with torch.inference_mode():
        return [
            model(
                torch.from_numpy(batch.input_ids).long(),
                torch.from_numpy(batch.attention_mask).long(),
                torch.from_numpy(batch.is_cls),
            ).numpy()
            for batch in probe
        ]


def _build(
    model: PooledModel, folder: Path, choice: Choice, settings: EncoderSettings, max_seq_length: int
) -> Backend:
    if choice.backend == "openvino":
        from encoder.backends.converted_model import convert_pooled_model
        from encoder.backends.openvino_backend import OpenVinoBackend
        from encoder.backends.packed_model import can_pack

        return OpenVinoBackend(
            convert_pooled_model(model),
            dtype=choice.dtype,
            max_batch_tokens=settings.max_batch_tokens,
            num_threads=settings.num_threads,
            convert_packed=partial(_convert_packed, folder) if can_pack(model) else None,
        )
    from encoder.backends.torch_backend import TorchBackend

    return TorchBackend(
        model,
        dtype=choice.dtype,
        device=choice.device,
        max_seq_length=max_seq_length,
        max_batch_tokens=settings.max_batch_tokens,
        num_threads=settings.num_threads,
    )


def _convert_packed(folder: Path) -> Any:  # noqa: ANN401 - OpenVINO has no types
    """Load the model once more: few who open it need this form, and all would hold its weights."""
    from encoder.backends.converted_model import convert_packed_model
    from encoder.backends.pooled_model import load_pooled_model

    return convert_packed_model(load_pooled_model(folder))


def _open_int8(
    folder: Path, settings: EncoderSettings, hardware: Hardware, weights_sha256: str | None
) -> Backend:
    """Open the quantized graph."""
    from encoder.backends.int8_graph import load_int8_model
    from encoder.backends.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(
        load_int8_model(folder, weights_sha256),
        dtype=hardware.fastest_dtype("openvino", "cpu"),
        max_batch_tokens=settings.max_batch_tokens,
        num_threads=settings.num_threads,
    )


def _judge_int8(folder: Path, choice: Choice, found: npt.NDArray[np.float64]) -> None:
    """Say how close the graph is on this machine, where products may saturate that did not before.

    A warning, and no more: texts that it was calibrated on are not at hand.
    """
    record, mean = read_int8_record(folder), float(found.mean()) if len(found) else 1.0
    if mean >= MIN_INT8_MEAN_COSINE:
        _log(choice, f"as asked; mean cosine to float32 {mean:.5f}, {record.mean_cosine} recorded")
        return
    _logger.warning(
        "int8 is less close to float32 on this machine than it must be: mean cosine %.5f on %d "
        "texts, recorded where it was quantized %s; use a CPU with VNNI, or dtype bfloat16",
        mean,
        len(found),
        record.mean_cosine,
    )


def _log(choice: Choice, why: str) -> None:
    _logger.info("encoding with %s %s on %s (%s)", choice.backend, choice.dtype, choice.device, why)
