"""Rounds of work: who is tried again, who is blamed, what is planned anew. No Ray here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pytest

from encoder.errors import InvalidInputError, ModelLoadError
from pipelines.actor.events import Ending, Event, ShardEvent, UnitEvent
from pipelines.driver import execute
from pipelines.driver.execute import MOST_TRIES, Outcome, run_units
from pipelines.driver.pool import Pool
from pipelines.errors import ClusterError
from pipelines.source.units import Source, WorkUnit
from support.corpora import a_job, a_source, a_unit, an_indexed_shard

POOL = Pool(min_actors=1, max_actors=1, num_cpus=1, num_gpus=0, units_in_flight=2, fits_now=True)
A, B, C = (a_unit(a_source(f"/in/{name}.jsonl")) for name in "abc")

Round = Callable[[list[WorkUnit]], Iterable[Event]]


def done(unit: WorkUnit) -> UnitEvent:
    return UnitEvent(unit.key, Ending.DONE)


def ended(unit: WorkUnit, ending: Ending) -> UnitEvent:
    return UnitEvent(unit.key, ending, f"{unit.label}: {ending.value}")


class Rounds:
    """Stands for Ray Data: what comes of the units in each round."""

    def __init__(self, *rounds: Round) -> None:
        self._waiting = list(rounds)
        self.units: list[list[WorkUnit]] = []
        self.units_in_flight: list[int] = []
        self.most_lost: list[int | None] = []

    def stream(
        self, job: object, units: list[WorkUnit], pool: Pool, most_lost: int | None
    ) -> Iterator[Event]:
        self.units.append(units)
        self.most_lost.append(most_lost)
        self.units_in_flight.append(pool.units_in_flight)
        yield from self._waiting.pop(0)(units) if self._waiting else map(done, units)


def never(source: Source) -> list[WorkUnit]:
    raise AssertionError(f"{source.uri} is planned again")


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(
        rounds: Rounds,
        units: Sequence[WorkUnit],
        replan: Callable[[Source], list[WorkUnit]] = never,
    ) -> tuple[Outcome, list[Event]]:
        monkeypatch.setattr(execute, "_stream", rounds.stream)
        events: list[Event] = []
        outcome = run_units(
            a_job(tmp_path),
            {unit.key: unit for unit in units},
            POOL,
            replan=replan,
            on_event=events.append,
        )
        return outcome, events

    return run


def all_but(*lost: WorkUnit) -> Round:
    """A round in which some units' workers die."""
    return lambda units: [done(unit) for unit in units if unit not in lost]


def new_version(unit: WorkUnit, version: str = "v2") -> WorkUnit:
    return a_unit(a_source(unit.source.uri, version))


def test_units_that_are_done_are_run_once_and_all_events_are_passed_on(run):
    shard = an_indexed_shard(A)
    event = ShardEvent(A.key, str(shard.name), 1, shard.footer, False, {}, 0.0, 0)
    rounds = Rounds(lambda _: [event, done(A), done(B)])
    outcome, events = run(rounds, [A, B])
    assert events == [event, done(A), done(B)]
    assert (outcome.failures, outcome.replanned) == ({}, set())
    assert list(outcome.units) == [A.key, B.key]
    assert rounds.units == [[A, B]]


def test_a_unit_that_kills_its_worker_is_tried_twice_again_alone_and_then_named(run):
    rounds = Rounds(*[all_but(B)] * MOST_TRIES)
    outcome, _ = run(rounds, [A, B, C])
    assert rounds.units == [[A, B, C], [B], [B]]
    assert rounds.units_in_flight == [2, 1, 1]
    assert list(outcome.failures) == [B.label]
    assert outcome.failures[B.label].startswith(f"{B.label}: its worker died")


def too_many_lost_after(*events: Event) -> Round:
    """A round that ends because workers died."""

    def cut_short(_: list[WorkUnit]) -> Iterator[Event]:
        yield from events
        raise execute._WorkersDiedError("the workers of 17 units died")

    return cut_short


def test_workers_that_die_before_anything_is_committed_end_the_run(run):
    with pytest.raises(ClusterError, match="17 units died, and nothing was committed; try"):
        run(Rounds(too_many_lost_after(ended(A, Ending.FAILED))), [A, B, C])


def test_workers_that_die_in_a_run_that_has_committed_something_do_not_end_it(run):
    rounds = Rounds(too_many_lost_after(done(A)), all_but(B), all_but(B))
    outcome, _ = run(rounds, [A, B, C])
    # Whether B and C were begun in the first round nobody knows: it is none of their three tries.
    assert rounds.units == [[A, B, C], [B, C], [B], [B]]
    assert rounds.units_in_flight == [2, 2, 1, 1]
    assert outcome.failures == {}


def test_only_while_nothing_is_committed_the_units_that_may_be_lost_are_counted(run):
    rounds = Rounds(all_but(A, B, C), all_but(A, B), all_but(A))
    run(rounds, [A, B, C])
    assert rounds.most_lost == [16, 16, None]


def test_the_more_actors_the_more_units_may_be_lost_at_first(run, monkeypatch):
    rounds = Rounds()
    monkeypatch.setattr(sys.modules[__name__], "POOL", replace(POOL, max_actors=10))
    run(rounds, [A])
    assert rounds.most_lost == [80]


def test_an_innocent_neighbour_of_a_killer_is_not_blamed(run):
    rounds = Rounds(all_but(A, B), all_but(B), all_but(B))
    outcome, _ = run(rounds, [A, B, C])
    assert rounds.units == [[A, B, C], [A, B], [B]]
    assert list(outcome.failures) == [B.label]


def test_a_unit_that_dies_twice_and_then_ends_has_not_failed(run):
    rounds = Rounds(all_but(A), all_but(A))
    outcome, _ = run(rounds, [A])
    assert len(rounds.units) == 3
    assert outcome.failures == {}


def test_a_unit_that_the_store_failed_is_tried_again_and_its_last_error_named(run):
    interrupted = [lambda units: [ended(unit, Ending.INTERRUPTED) for unit in units]] * MOST_TRIES
    rounds = Rounds(*interrupted)
    outcome, _ = run(rounds, [A])
    assert len(rounds.units) == MOST_TRIES
    assert outcome.failures == {A.label: f"{A.label}: interrupted; tried 3 times"}


def test_a_unit_that_fails_is_named_and_not_tried_again(run):
    rounds = Rounds(lambda _: [ended(A, Ending.FAILED), done(B)])
    outcome, _ = run(rounds, [A, B])
    assert len(rounds.units) == 1
    assert outcome.failures == {A.label: f"{A.label}: failed"}


def test_a_model_that_does_not_load_ends_the_run(run):
    rounds = Rounds(lambda _: [UnitEvent(A.key, Ending.FATAL, "no such model"), done(B)])
    with pytest.raises(ModelLoadError, match="no such model"):
        run(rounds, [A, B])


def test_a_model_that_does_not_load_on_one_worker_later_is_that_workers_trouble(run):
    rounds = Rounds(
        lambda _: [done(B), UnitEvent(A.key, Ending.FATAL, "the store says 503")],
        lambda _: [done(A)],
    )
    outcome, _ = run(rounds, [A, B])
    assert outcome.failures == {}
    assert len(rounds.units) == 2


def test_a_unit_whose_worker_is_broken_is_tried_on_another(run):
    rounds = Rounds(lambda _: [ended(A, Ending.BROKEN), done(B)], lambda _: [done(A)])
    outcome, _ = run(rounds, [A, B])
    assert outcome.failures == {}


def test_a_source_that_changed_is_planned_again_once_for_all_its_units(run):
    second = a_unit(A.source, start=10)
    fresh = new_version(A)
    planned: list[Source] = []

    def replan(source: Source) -> list[WorkUnit]:
        planned.append(source)
        return [fresh]

    rounds = Rounds(lambda _: [ended(A, Ending.CHANGED), ended(second, Ending.CHANGED), done(B)])
    outcome, _ = run(rounds, [A, second, B], replan)
    assert planned == [A.source]
    assert rounds.units == [[A, second, B], [fresh]]
    assert set(outcome.units) == {B.key, fresh.key}
    assert outcome.replanned == {A.source.uri}
    assert outcome.failures == {}


def test_a_source_that_changes_again_fails(run):
    fresh = new_version(A)
    changed = lambda units: [ended(unit, Ending.CHANGED) for unit in units]  # noqa: E731
    rounds = Rounds(changed, changed)
    outcome, _ = run(rounds, [A], lambda _: [fresh])
    assert rounds.units == [[A], [fresh]]
    assert outcome.failures == {
        fresh.label: f"{fresh.label}: changed; it was planned again once already"
    }
    assert set(outcome.units) == {fresh.key}


def test_what_failed_of_the_old_version_does_not_count_once_the_new_one_is_done(run):
    second = a_unit(A.source, start=10)
    fresh = new_version(A)
    rounds = Rounds(lambda _: [ended(second, Ending.FAILED), ended(A, Ending.CHANGED)])
    outcome, _ = run(rounds, [A, second], lambda _: [fresh])
    assert outcome.failures == {}
    assert set(outcome.units) == {fresh.key}


def test_a_dead_unit_of_a_source_that_changed_is_not_tried_again(run):
    second = a_unit(A.source, start=10)
    fresh = new_version(A)
    rounds = Rounds(lambda _: [ended(A, Ending.CHANGED)])
    run(rounds, [A, second], lambda _: [fresh])
    assert rounds.units[1] == [fresh]


def test_a_source_that_cannot_be_planned_again_fails_alone_and_stays_in_the_plan(run):
    def gone(source: Source) -> list[WorkUnit]:
        raise InvalidInputError(f"input {source.uri}: found nothing there")

    rounds = Rounds(lambda _: [ended(A, Ending.CHANGED), done(B)])
    outcome, _ = run(rounds, [A, B], gone)
    assert outcome.failures == {
        A.label: f"{A.label}: changed; input {A.source.uri}: found nothing there"
    }
    assert set(outcome.units) == {A.key, B.key}


def test_a_source_of_which_nothing_is_left_is_no_failure(run):
    rounds = Rounds(lambda _: [ended(A, Ending.CHANGED), done(B)])
    outcome, _ = run(rounds, [A, B], lambda _: [])
    assert outcome.failures == {}
    assert set(outcome.units) == {B.key}
