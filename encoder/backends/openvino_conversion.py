"""PyTorch modules as OpenVINO graphs, converted in memory; and OpenVINO without its telemetry.

Knows neither compiling nor running: the backend and `twofold export` do that.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from encoder.backends.pooled_model import quiet_transformers
from encoder.errors import ModelLoadError

__all__ = ["convert", "import_openvino", "without_telemetry"]


def convert(
    openvino: ModuleType, module: nn.Module, example_input: tuple[torch.Tensor, ...]
) -> Any:  # noqa: ANN401 - OpenVINO has no types
    """Return the `openvino.Model` of a module; every axis of its inputs is of any length.

    Args:
        openvino: The package, as `import_openvino` returns it.
        module: In evaluation mode, in float32.
        example_input: What the module is traced with.

    Raises:
        RuntimeError: OpenVINO cannot convert the module.
    """
    with torch.inference_mode(), quiet_transformers(), warnings.catch_warnings():
        # torch.jit.trace warns of every Python branch that it fixes; the parity tests cover them.
        warnings.simplefilter("ignore")
        level = logging.root.level
        try:
            return openvino.convert_model(
                module,
                example_input=example_input,
                # A copy: OpenVINO would go on reading memory that PyTorch owns.
                share_weights=False,
                input=[openvino.PartialShape([-1] * tensor.dim()) for tensor in example_input],
            )
        except openvino.frontend.OpConversionFailure as error:
            # It is no RuntimeError, as what else is raised here.
            raise RuntimeError(str(error)) from error
        finally:
            # Where it fails, OpenVINO leaves the whole process without its warnings.
            logging.root.setLevel(level)


def import_openvino(purpose: str, instead: str) -> ModuleType:
    """Import OpenVINO without its telemetry, which would report the import and each conversion.

    Args:
        purpose: What needs it, as the error names it.
        instead: What to do without it, as the error says it.

    Raises:
        ModelLoadError: OpenVINO is not installed.
    """
    try:
        with without_telemetry():
            import openvino
    except ImportError as error:
        raise ModelLoadError(
            f"{purpose} needs the package openvino, which is not installed; "
            f"pip install 'twofold[cpu]', or {instead}"
        ) from error
    module: ModuleType = openvino
    return module


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide the package openvino_telemetry from what is imported meanwhile."""
    blocked = "openvino_telemetry" not in sys.modules
    if blocked:
        # None makes the import fail; OpenVINO and NNCF then fall back to silent stand-ins.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if blocked:
            del sys.modules["openvino_telemetry"]
