"""Load the backend that was chosen, and prove that its precision keeps fidelity.

Where the precision was left to us it is used only if it passes a probe: a few texts, pooled both
ways, against float32 on the same weights.
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
from encoder.backends.fidelity import MIN_REDUCED_COSINE, lowest_cosine
from encoder.settings import EncoderSettings

if TYPE_CHECKING:
    from encoder.backends.pooled_model import PooledModel

__all__ = ["lowest_cosine_of", "open_backend"]

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
        _log(choice, "as asked")
        return _open_int8(folder, settings, hardware, weights_sha256)
    model = load_pooled_model(folder)
    if choice.dtype == "float32" or not choice.is_dtype_ours:
        _log(choice, "as asked" if not choice.is_dtype_ours else "no faster precision here")
        return _build(model, folder, choice, settings, max_seq_length)

    reference = _reference_vectors(model, probe)
    backend = _build(model, folder, choice, settings, max_seq_length)
    lowest = lowest_cosine_of(backend, probe, reference)
    if lowest >= MIN_REDUCED_COSINE:
        _log(choice, f"min cosine to float32 {lowest:.5f}")
        return backend
    backend.close()
    exact = replace(choice, dtype="float32")
    _log(exact, f"{choice.dtype} has min cosine {lowest:.5f}, below {MIN_REDUCED_COSINE}")
    # The first model was cast in place.
    return _build(load_pooled_model(folder), folder, exact, settings, max_seq_length)


def lowest_cosine_of(
    backend: Backend, probe: Sequence[TokenBatch], reference: Sequence[npt.NDArray[np.float32]]
) -> float:
    """Return the lowest cosine between a backend's vectors and the reference; -1 for NaN."""
    # One by one: of many together a backend may need graphs that nobody has use for yet.
    cosines = (
        lowest_cosine(vectors, expected)
        for batch, expected in zip(probe, reference, strict=True)
        for _, vectors in backend.forward([batch])
    )
    return min(cosines, default=1.0)


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
    """Open the quantized graph. Its record says how close it is, so nothing is probed."""
    from encoder.backends.int8_graph import load_int8_model
    from encoder.backends.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(
        load_int8_model(folder, weights_sha256),
        dtype=hardware.fastest_dtype("openvino", "cpu"),
        max_batch_tokens=settings.max_batch_tokens,
        num_threads=settings.num_threads,
    )


def _log(choice: Choice, why: str) -> None:
    _logger.info("encoding with %s %s on %s (%s)", choice.backend, choice.dtype, choice.device, why)
