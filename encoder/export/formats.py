"""What a format of `twofold export` is: files in a folder, checked, and how they are used.

pooled_graph ── onnx_format
    └────────── openvino_format
sentence_transformers_format
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from encoder.export.fidelity import Fidelity
from encoder.model.description import ModelDescription

__all__ = ["ExportFormat"]


class ExportFormat(Protocol):
    """One way of writing a model down.

    Attributes:
        name: As the README of the exported folder calls it.
        keeps_weights: Whether the model's safetensors files are part of it.
    """

    name: str
    keeps_weights: bool

    def write(self, model: ModelDescription, folder: Path) -> Fidelity | None:
        """Write the format's own files into a folder that holds the model's, and check them.

        Args:
            model: What is exported.
            folder: Holds the model's configuration and tokenizer, and its weights where
                `keeps_weights`.

        Returns:
            What the check found; None where nothing here can run the files.

        Raises:
            InvalidInputError: A package that is needed is not installed.
            ModelLoadError: The model cannot be loaded or converted.
            BackendError: The files give other vectors than the model.
        """
        ...

    def usage(self, model: ModelDescription) -> str:
        """Return how the files are used, in Markdown."""
        ...
