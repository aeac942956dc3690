"""The models that tests make on the spot; benchmarks make the same ones, so they stand there."""

from __future__ import annotations

from benchmarks.models import (
    NOINSTRUCT,
    minilm_folder,
    save_random_bert,
    save_random_noinstruct,
)

__all__ = ["NOINSTRUCT", "minilm_folder", "save_random_bert", "save_random_noinstruct"]
