"""Post-training quantization to int8 by NNCF: a graph and some batches in, a quantized graph out.

Products of matrices become int8; what NNCF leaves (softmax, normalization, pooling) runs in the
precision that the backend asks for. NNCF is an optional extra; its telemetry is kept out, and so
are its logs and progress bars. Knows nothing of texts, files or fidelity.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib import import_module
from types import ModuleType

from encoder.backends.base import TokenBatch
from encoder.backends.converted_model import ConvertedModel
from encoder.backends.openvino_conversion import without_telemetry
from encoder.errors import InvalidInputError, ModelLoadError, one_line

__all__ = ["calibrate", "import_nncf"]


def calibrate(model: ConvertedModel, batches: Sequence[TokenBatch]) -> ConvertedModel:
    """Return the model in int8, its ranges taken from the batches.

    Args:
        model: In float32; it stays as it is.
        batches: What the ranges of activations are taken from, all of them.

    Raises:
        InvalidInputError: NNCF is not installed.
        ModelLoadError: NNCF cannot quantize the model.
    """
    nncf = import_nncf()
    inputs = [batch.arrays for batch in batches]
    try:
        with _quiet():
            graph = nncf.quantize(
                model.graph,
                nncf.Dataset(inputs),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(inputs),
            )
    except (RuntimeError, ValueError, nncf.UnsupportedModelError, nncf.InternalError) as error:
        raise ModelLoadError(
            f"expected a model that NNCF can quantize, found: {one_line(error)[:300]}; use dtype "
            "bfloat16"
        ) from error
    return replace(model, graph=graph, is_int8=True)


def import_nncf() -> ModuleType:
    """Import NNCF without its telemetry.

    Raises:
        InvalidInputError: It is not installed.
    """
    # NNCF makes a logger class of its own the whole process's; ours stay as they are.
    logger_class = logging.getLoggerClass()
    try:
        with without_telemetry():
            return import_module("nncf")
    except ImportError as error:
        raise InvalidInputError(
            "quantizing needs the Python package nncf, which is not installed; "
            "pip install 'twofold[int8]'"
        ) from error
    finally:
        logging.setLoggerClass(logger_class)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep logs of every step and progress bars out of the command's output; errors are raised."""
    # NNCF's own set_log_level also changes its logger's handlers, which others may share, for good.
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
