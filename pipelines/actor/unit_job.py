"""What every unit of a run has in common; made by the driver, carried to the actors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from encoder.settings import EncoderSettings
from encoder.space import Role
from pipelines.actor.prepare import LongTexts
from pipelines.corpus.earlier_shards import EarlierShards
from pipelines.corpus.pin import Pin
from pipelines.settings import OnInvalid, OnLong

__all__ = ["UnitJob", "code_digest", "twofold_version"]


@cache
def code_digest() -> str:
    """Return what tells the code that runs here from any other: "1f2e3d4c".

    Of the files themselves, for a job's working directory hides what is installed on a node.
    """
    code = hashlib.sha256()
    root = Path(__file__).resolve().parents[2]
    for package in ("encoder", "pipelines"):
        for file in sorted((root / package).rglob("*.py")):
            code.update(file.read_bytes())
    return code.hexdigest()[:8]


def twofold_version() -> str:
    """Return what a message says of the twofold that runs here: "0.1.0 (code 1f2e3d4c)".

    The version is that of what is installed, be it not what runs.
    """
    try:
        installed = version("twofold")
    except PackageNotFoundError:
        installed = "not installed"
    return f"{installed} (code {code_digest()})"


@dataclass(frozen=True)
class UnitJob:
    """What every unit of a run has in common; travels to the actors.

    Attributes:
        output: URI of the output folder.
        pin: Space and layout, as pinned in it.
        encoder: The model and how to run it.
        on_invalid: How far invalid input is tolerated.
        batch_timeout_s: Deadline of a batch's forward, in seconds.
        run_id: Names this run in the footers.
        earlier: Shards that may hold texts of its units already.
        version: Of the driver's twofold, as messages say it.
        code: Of the driver's twofold; that of its workers must be the same.
    """

    output: str
    pin: Pin
    encoder: EncoderSettings
    on_invalid: OnInvalid | None
    batch_timeout_s: float
    run_id: str
    earlier: EarlierShards = field(default_factory=EarlierShards)
    version: str = field(default_factory=twofold_version)
    code: str = field(default_factory=code_digest)

    @property
    def role(self) -> Role:
        """Role as which the rows are embedded."""
        return Role(self.pin.layout.role)

    @property
    def long_texts(self) -> LongTexts:
        """Treatment of long texts."""
        return LongTexts(OnLong(self.pin.layout.on_long), self.pin.layout.chunk_overlap)
