"""What every unit of a run has in common; made by the driver, carried to the actors."""

from __future__ import annotations

from dataclasses import dataclass

from encoder.settings import EncoderSettings
from encoder.space import Role
from pipelines.actor.prepare import LongTexts
from pipelines.corpus.pin import Pin
from pipelines.settings import OnInvalid, OnLong

__all__ = ["UnitJob"]


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
    """

    output: str
    pin: Pin
    encoder: EncoderSettings
    on_invalid: OnInvalid | None
    batch_timeout_s: float
    run_id: str

    @property
    def role(self) -> Role:
        """Role as which the rows are embedded."""
        return Role(self.pin.layout.role)

    @property
    def long_texts(self) -> LongTexts:
        """Treatment of long texts."""
        return LongTexts(OnLong(self.pin.layout.on_long), self.pin.layout.chunk_overlap)
