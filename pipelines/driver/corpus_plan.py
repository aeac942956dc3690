"""The plan of a run: what there is to embed, into which output, and what of it is done."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoder.errors import InvalidInputError
from encoder.model.description import ModelDescription, describe_model
from pipelines.corpus.pin import CorpusLayout, Pin, check_pin, pin_output
from pipelines.corpus.shards import DATA, group_by_unit
from pipelines.driver.inputs import look_at_inputs
from pipelines.driver.report import installed_versions
from pipelines.errors import LayoutMismatchError
from pipelines.settings import CorpusSettings, EmbedCorpusSettings, OnInvalid, OnLong
from pipelines.source.corpus_columns import CorpusColumns, kind_of
from pipelines.source.plan import plan_units
from pipelines.source.sources import current_version
from pipelines.source.units import Source, WorkUnit
from pipelines.storage import Storage, store_errors

__all__ = ["Plan", "pin_of", "pin_plan", "plan_again", "plan_corpus"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        sources: The input files.
        columns: What they say of their columns.
        pin: Space and layout of what it would write.
        model: Reference of its model, at the commit that the hub has now.
        units: All work units, by key.
        done: Keys of the units that are complete in the output.
        has_shards: Whether the output holds shards of any of these units.
    """

    sources: list[Source]
    columns: CorpusColumns
    pin: Pin
    model: str
    units: dict[str, WorkUnit]
    done: frozenset[str]
    has_shards: bool

    @property
    def todo(self) -> dict[str, WorkUnit]:
        """The units that are not complete."""
        return {key: unit for key, unit in self.units.items() if key not in self.done}

    def lines(self) -> list[tuple[str, str]]:
        """Return the plan as (name, value) lines."""
        units, todo = self.units.values(), self.todo.values()
        rows = [unit.rows for unit in units]
        known = sum(row for row in rows if row is not None)
        unknown = sum(row is None for row in rows)
        beyond = f" and those of {unknown:,} units not known before they are read"
        return [
            ("files", f"{len(self.sources):,}"),
            ("bytes", f"{sum(source.size_bytes for source in self.sources):,}"),
            ("work units", f"{len(self.units):,}"),
            ("rows", f"{known:,}{beyond if unknown else ''}"),
            ("units done", f"{len(self.done):,}"),
            ("units to do", f"{len(self.todo):,}"),
            ("bytes to do", f"{sum(unit.size_bytes for unit in todo):,}"),
            ("space", self.pin.space.summary()),
        ]


def plan_corpus(settings: EmbedCorpusSettings, storage: Storage) -> Plan:
    """Plan a run; writes nothing.

    Raises:
        InvalidInputError: The inputs or their columns are not what the settings say.
        ModelLoadError: The model's space cannot be read.
        SpaceMismatchError: The output holds another space.
        LayoutMismatchError: The output has another layout.
    """
    sources, columns = look_at_inputs(
        settings, pass_through=settings.columns, written=storage.below(DATA)
    )
    model = describe_model(settings.encoder)
    wanted = pin_of(settings, columns, model)
    pin = check_pin(storage, wanted)
    if pin is wanted:
        columns.require_types()
    _check_types(columns, pin, storage.uri)
    with store_errors("plan the inputs"):
        units = _units_of(sources, settings)
    committed = group_by_unit(storage.sizes(DATA))
    done = frozenset(u.key for u in units if u.key in committed and committed[u.key].complete)
    has_shards = any(unit.key in committed for unit in units)
    by_key = {unit.key: unit for unit in units}
    return Plan(sources, columns, pin, str(model.reference), by_key, done, has_shards)


def pin_plan(plan: Plan, storage: Storage) -> Plan:
    """Pin the output; return the plan with the pin that holds, which may be another job's.

    Raises:
        SpaceMismatchError: A job that started at the same time pinned another space.
        LayoutMismatchError: It pinned another layout, or other kinds of values than these inputs'.
    """
    pin = pin_output(storage, plan.pin)
    _check_types(plan.columns, pin, storage.uri)
    return replace(plan, pin=pin)


def plan_again(source: Source, settings: EmbedCorpusSettings) -> list[WorkUnit]:
    """Return the units of a source that has changed since it was planned; none if it is gone.

    Lakes rotate their files: one that goes while a run is at work is as one that went before it,
    and what was committed of a part of it is retired (`Publisher.abandoned`).

    Raises:
        StorageError: The store did not answer.
    """
    with store_errors(f"plan {source.uri} again"):
        try:
            version, size_bytes = current_version(source.uri)
            return _units_of([replace(source, version=version, size_bytes=size_bytes)], settings)
        except (FileNotFoundError, NotADirectoryError):
            _LOG.warning("%s is gone since the job was planned: nothing of it is left", source.uri)
            return []


def pin_of(settings: CorpusSettings, columns: CorpusColumns, model: ModelDescription) -> Pin:
    """Return what a run with these settings would pin an empty output to.

    Raises:
        InvalidInputError: Chunks would overlap by more than half of what the model reads.
    """
    limit = model.space.max_seq_length
    if settings.on_long is OnLong.CHUNK and 2 * settings.chunk_overlap > limit:
        raise InvalidInputError(
            f"--chunk-overlap {settings.chunk_overlap} is more than half of max_seq_length "
            f"({limit}): chunks would hardly move; lower it"
        )
    return Pin(
        space=model.space,
        layout=CorpusLayout.of(settings, columns),
        carried=columns.carried,
        provenance={**model.provenance, **installed_versions()},
    )


def _check_types(columns: CorpusColumns, pin: Pin, output: str) -> None:
    """Refuse inputs whose rows would be rejected, for the output holds another kind of value.

    Types of one kind may differ: those of JSON lines are inferred from whatever file comes first.
    """
    for name, uri in columns.said_by.items():
        here, there = (schema.field(name).type for schema in (columns.carried, pin.carried))
        if kind_of(here) != kind_of(there):
            raise LayoutMismatchError(
                f"column {name!r} is {here} in {uri} and {there} in {output}, where the first run "
                "has pinned it: every such row would be rejected. Convert the file, leave it out, "
                "or use another --output"
            )


def _units_of(sources: Sequence[Source], settings: EmbedCorpusSettings) -> list[WorkUnit]:
    """Return the work units of sources under a run's settings; see `plan_units`."""
    return plan_units(
        sources,
        unit_bytes=settings.unit_bytes,
        tolerate_unreadable=settings.on_invalid is OnInvalid.REJECT,
    )
