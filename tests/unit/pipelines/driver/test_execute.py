"""Rounds of work: who is tried again, who is blamed, what is planned anew. No Ray here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pytest

from encoder.errors import BackendError, InvalidInputError, ModelLoadError, SpaceMismatchError
from pipelines.actor.events import BeginEvent, DeathEvent, Ending, Event, ShardEvent, UnitEvent
from pipelines.driver.execute import run_units
from pipelines.driver.ledger import MOST_TRIES
from pipelines.driver.outcome import Outcome
from pipelines.driver.pool import Pool
from pipelines.errors import ClusterError
from pipelines.source.units import Source, WorkUnit
from support.corpora import a_source, a_unit, an_indexed_shard

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

    def stream(self, units: list[WorkUnit], pool: Pool) -> Iterator[Event]:
        self.units.append(units)
        self.units_in_flight.append(pool.units_in_flight)
        yield from self._waiting.pop(0)(units) if self._waiting else map(done, units)


def never(source: Source) -> list[WorkUnit]:
    raise AssertionError(f"{source.uri} is planned again")


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """Seconds that were waited between rounds; nobody waits here."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def run(
    rounds: Rounds,
    units: Sequence[WorkUnit],
    replan: Callable[[Source], list[WorkUnit]] = never,
    has_shards: bool = False,
    pool: Pool = POOL,
) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    outcome = run_units(
        rounds.stream,
        {unit.key: unit for unit in units},
        pool,
        replan=replan,
        on_event=events.append,
        has_shards=has_shards,
    )
    return outcome, events


def all_but(*lost: WorkUnit) -> Round:
    """A round in which some units' workers die."""
    return lambda units: [done(unit) for unit in units if unit not in lost]


def new_version(unit: WorkUnit, version: str = "v2") -> WorkUnit:
    return a_unit(a_source(unit.source.uri, version))


def test_units_that_are_done_are_run_once_and_all_events_are_passed_on():
    event = shard_of(A)
    rounds = Rounds(lambda _: [event, done(A), done(B)])
    outcome, events = run(rounds, [A, B])
    assert events == [event, done(A), done(B)]
    assert (outcome.failures, outcome.replanned) == ({}, set())
    assert list(outcome.units) == [A.key, B.key]
    assert rounds.units == [[A, B]]


def test_a_unit_that_kills_its_worker_is_tried_twice_again_alone_and_then_named():
    rounds = Rounds(*[all_but(B)] * MOST_TRIES)
    outcome, _ = run(rounds, [A, B, C])
    assert rounds.units == [[A, B, C], [B], [B]]
    assert rounds.units_in_flight == [2, 1, 1]
    assert list(outcome.failures) == [B.label]
    assert outcome.failures[B.label].startswith(f"{B.label}: its worker died")
    assert outcome.failures[B.label].endswith("session folder says which); tried 3 times")


def begun(unit: WorkUnit) -> BeginEvent:
    return BeginEvent(unit.key)


def many_units() -> list[WorkUnit]:
    return [a_unit(a_source(f"/in/{number}.jsonl")) for number in range(30)]


def deaths(count: int) -> list[Event]:
    """What is heard of workers that die of each of so many units, the pool's last two under way."""
    return [begun(unit) for unit in [A, B, C] * 100][: count + 2]


def shard_of(unit: WorkUnit, ordinal: int = 0) -> ShardEvent:
    shard = an_indexed_shard(unit, ordinal)
    return ShardEvent(unit.key, str(shard.name), 1, shard.footer, False, {}, 0.0, 0)


def test_workers_that_die_of_unit_after_unit_end_a_run_that_never_committed_anything():
    with pytest.raises(ClusterError, match="17 work units are lost with their workers, nothing"):
        run(Rounds(lambda _: deaths(17)), [A, B, C])


def test_sixteen_lost_units_do_not_end_it():
    outcome, _ = run(Rounds(lambda _: deaths(16)), [A, B, C])
    assert outcome.failures == {}


@pytest.mark.parametrize("good", [shard_of(A), done(A)], ids=lambda event: type(event).__name__)
def test_once_anything_is_committed_any_number_of_units_may_be_lost(good):
    outcome, _ = run(Rounds(lambda _: [begun(A), good, *deaths(99)]), [A, B, C])
    assert outcome.failures == {}


def test_where_an_earlier_run_has_committed_something_any_number_may_be_lost():
    outcome, _ = run(Rounds(lambda _: deaths(99)), [A, B, C], has_shards=True)
    assert outcome.failures == {}


def test_a_model_that_loads_nowhere_ends_a_run_whatever_an_earlier_one_committed():
    rounds = Rounds(lambda _: [UnitEvent(A.key, Ending.FATAL, "no such model")])
    with pytest.raises(ModelLoadError, match="no such model"):
        run(rounds, [A, B], has_shards=True)


def test_what_was_committed_in_an_earlier_round_counts_in_the_next():
    fatal = UnitEvent(A.key, Ending.FATAL, "the store says 503")
    rounds = Rounds(lambda _: [shard_of(A)], lambda _: [fatal, *deaths(99)], all_but())
    outcome, _ = run(rounds, [A, B, C])
    assert outcome.failures == {}
    assert len(rounds.units) == 3


def test_units_that_fail_are_not_lost():
    units = many_units()
    failed = [event for unit in units for event in (begun(unit), ended(unit, Ending.FAILED))]
    outcome, _ = run(Rounds(lambda _: failed), units)
    assert len(outcome.failures) == len(units)


def test_a_model_that_fails_on_worker_after_worker_ends_the_run_and_says_why():
    units = many_units()
    with pytest.raises(
        BackendError, match=r"17 work units are lost.*the last worker said: .*16.jsonl.*: broken$"
    ):
        run(Rounds(lambda _: broken(units)), units)


def broken(units: list[WorkUnit]) -> list[Event]:
    return [event for unit in units for event in (begun(unit), ended(unit, Ending.BROKEN))]


def test_a_model_that_begins_to_fail_on_worker_after_worker_ends_a_run_that_has_committed():
    units = many_units()
    with pytest.raises(BackendError, match=r"nothing is committed meanwhile; the last worker said"):
        run(Rounds(lambda _: [begun(A), shard_of(A), *broken(units)]), units, has_shards=True)


def test_workers_that_fail_while_others_commit_do_not_end_it():
    units = many_units()
    good = [begun(A), shard_of(A)]
    events = [*broken(units[:15]), *good, *broken(units[15:]), *good]
    outcome, _ = run(Rounds(lambda _: events, all_but()), units)
    assert outcome.failures == {}


def test_a_device_that_breaks_and_is_refused_when_its_worker_starts_again_is_told_with_both():
    rounds = Rounds(lambda _: [*broken([A]), ended(B, Ending.MISMATCH)])
    with pytest.raises(
        SpaceMismatchError, match=r"mismatch; before, a worker ended itself: .*brok"
    ):
        run(rounds, [A, B])


def test_the_more_units_are_under_way_the_more_may_be_lost_at_first():
    pool = replace(POOL, max_actors=10)
    # 20 are under way, of what is heard in `deaths` all but the last two are known to be lost.
    run(Rounds(lambda _: deaths(80 + 18)), [A, B, C], pool=pool)
    with pytest.raises(ClusterError, match="81 work units are lost"):
        run(Rounds(lambda _: deaths(81 + 18)), [A, B, C], pool=pool)


def test_an_innocent_neighbour_of_a_killer_is_not_blamed():
    rounds = Rounds(all_but(A, B), all_but(B), all_but(B))
    outcome, _ = run(rounds, [A, B, C])
    assert rounds.units == [[A, B, C], [A, B], [B]]
    assert list(outcome.failures) == [B.label]


def test_a_unit_that_dies_twice_and_then_ends_has_not_failed():
    rounds = Rounds(all_but(A), all_but(A))
    outcome, _ = run(rounds, [A])
    assert len(rounds.units) == 3
    assert outcome.failures == {}


def test_a_unit_that_the_store_failed_is_tried_again_and_its_last_error_named(pauses):
    interrupted = [lambda units: [ended(unit, Ending.INTERRUPTED) for unit in units]] * MOST_TRIES
    rounds = Rounds(*interrupted)
    outcome, _ = run(rounds, [A])
    assert len(rounds.units) == MOST_TRIES
    assert outcome.failures == {A.label: f"{A.label}: interrupted; tried 3 times"}
    assert pauses == [15, 60], "after the last try nothing is waited for"


def test_a_store_that_fails_all_units_is_given_time(pauses):
    interrupted = [lambda units: [ended(unit, Ending.INTERRUPTED) for unit in units]] * 2
    outcome, _ = run(Rounds(*interrupted), [A, B])
    assert outcome.failures == {}
    assert pauses == [15, 60]


def test_a_store_that_begins_to_fail_in_the_middle_is_given_time_too(pauses):
    run(Rounds(lambda _: [shard_of(B), done(B), ended(A, Ending.INTERRUPTED)]), [A, B])
    assert pauses == [15]


def test_nobody_waits_where_others_get_on_after_it_or_workers_die(pauses):
    run(Rounds(lambda _: [ended(A, Ending.INTERRUPTED), shard_of(B)], all_but(A)), [A, B])
    run(Rounds(lambda _: [ended(A, Ending.INTERRUPTED), done(B)], all_but(A)), [A, B])
    assert pauses == []


def test_a_unit_that_gets_on_in_each_try_has_as_many_as_it_takes():
    """A file of hours, on nodes that come and go."""
    tries = 3 * MOST_TRIES
    rounds = Rounds(*(lambda _, n=n: [shard_of(A, n)] for n in range(tries)))
    outcome, _ = run(rounds, [A])
    assert len(rounds.units) == tries + 1
    assert outcome.failures == {}


def test_a_shard_that_an_earlier_try_had_committed_is_no_advance():
    """As of a store whose listings lack it: it would be embedded again for ever."""
    rounds = Rounds(*[lambda _: [shard_of(A), ended(A, Ending.INTERRUPTED)]] * 200)
    outcome, _ = run(rounds, [A])
    assert len(rounds.units) == MOST_TRIES
    assert list(outcome.failures) == [A.label]


def test_a_unit_that_gets_on_no_further_has_three_tries_from_there():
    rounds = Rounds(lambda _: [shard_of(A)], *[all_but(A)] * MOST_TRIES)
    outcome, _ = run(rounds, [A])
    assert len(rounds.units) == MOST_TRIES
    assert list(outcome.failures) == [A.label]


def test_a_unit_that_fails_is_named_and_not_tried_again():
    rounds = Rounds(lambda _: [ended(A, Ending.FAILED), done(B)])
    outcome, _ = run(rounds, [A, B])
    assert len(rounds.units) == 1
    assert outcome.failures == {A.label: f"{A.label}: failed"}


def test_a_model_that_does_not_load_ends_the_run():
    rounds = Rounds(lambda units: [UnitEvent(u.key, Ending.FATAL, "no such model") for u in units])
    with pytest.raises(ModelLoadError, match="no such model"):
        run(rounds, [A, B])


def fatal_on(*workers: str, units: Sequence[WorkUnit] = (A, B, C)) -> list[Event]:
    """What is heard of units that each of some workers, in turn, has no model for."""
    return [
        event
        for unit, worker in zip(units, workers, strict=False)
        for event in (BeginEvent(unit.key, worker), ended(unit, Ending.FATAL))
    ]


TWO = replace(POOL, min_actors=2, max_actors=2)


def test_a_model_that_does_not_load_on_one_of_two_workers_is_that_workers_trouble_from_the_start():
    """A full disk, an answer of a busy hub: the other is yet loading."""
    heard = [BeginEvent(C.key, "good"), *fatal_on("full", "full"), shard_of(C), done(C)]
    rounds = Rounds(lambda _: heard, all_but())
    outcome, _ = run(rounds, [A, B, C], pool=TWO)
    assert rounds.units == [[A, B, C], [A, B]]
    assert outcome.failures == {}


def and_no_more(events: Iterable[Event]) -> Round:
    """A round that the last of these events must end."""

    def heard(_: list[WorkUnit]) -> Iterator[Event]:
        yield from events
        pytest.fail("it goes on")

    return heard


@pytest.mark.parametrize(
    ("workers", "most"),
    [(["one"], 1), (["one"], 16), (["one", "two"], 2), (["one", "two"], 16)],
)
def test_a_model_that_loads_on_none_of_the_workers_ends_the_run_when_each_has_tried_twice(
    workers, most
):
    """However many were asked for: some may have no room, and elastic ones come when they come."""
    units = many_units()
    pool = replace(POOL, max_actors=most)
    with pytest.raises(ModelLoadError, match="fatal"):
        run(Rounds(and_no_more(fatal_on(*workers * 2, units=units))), units, pool=pool)


def test_the_first_workers_first_failure_is_not_the_end_of_an_elastic_pool():
    heard = [*fatal_on("one"), BeginEvent(B.key, "two"), done(B)]
    outcome, _ = run(Rounds(lambda _: heard, all_but()), [A, B], pool=replace(TWO, min_actors=1))
    assert outcome.failures == {}


def test_a_worker_that_died_is_not_waited_for_where_its_successor_has_no_model():
    units = many_units()
    events = [BeginEvent(C.key, "died"), *fatal_on("next", "next", units=units)]
    with pytest.raises(ModelLoadError):
        run(Rounds(and_no_more(events)), [C, *units])


def test_a_model_that_is_gone_in_a_later_round_is_given_minutes_and_not_a_try_of_every_unit():
    units = many_units()
    committed = lambda _: [shard_of(C)]  # noqa: E731
    some = Rounds(committed, lambda _: fatal_on(*["one"] * 15, units=units), all_but())
    assert run(some, [C, *units])[0].failures == {}
    last = and_no_more(fatal_on(*["one"] * 16, units=units))
    with pytest.raises(ModelLoadError):
        run(Rounds(committed, last), [C, *units])


def test_a_round_whose_units_all_met_workers_without_a_model_is_the_last_whoever_did_not_start():
    with pytest.raises(ModelLoadError):
        run(Rounds(lambda _: fatal_on("one", "one")), [A, B], pool=TWO)
    one_of_two = [*fatal_on("one"), BeginEvent(B.key, "two"), ended(B, Ending.FAILED)]
    outcome, _ = run(Rounds(lambda _: one_of_two), [A, B], pool=TWO)
    assert list(outcome.failures) == [B.label]


@pytest.mark.parametrize("first", [[], [done(C)]], ids=["before", "after-anything-is-committed"])
def test_a_worker_without_a_model_stops_none_beside_it_however_long_they_commit_nothing(first):
    """The first shard of a file of long texts may take hours."""
    units = many_units()
    events = [BeginEvent(C.key, "good"), *first, *fatal_on(*["full"] * 30, units=units), done(C)]
    outcome, _ = run(Rounds(lambda _: events, all_but()), [C, *units], pool=TWO)
    assert outcome.failures == {}


def test_a_round_that_ends_with_a_model_that_does_not_load_is_followed_by_a_pause(pauses):
    run(Rounds(lambda _: [done(B), ended(A, Ending.FATAL)]), [A, B])
    assert pauses == [15]


def test_what_ray_says_of_the_workers_that_died_is_told_with_the_units_that_were_lost():
    dies = lambda _: [begun(A), done(B), DeathEvent("ip: 10.0.0.7 OOM"), DeathEvent("ip: x")]  # noqa: E731
    outcome, _ = run(Rounds(*[dies] * MOST_TRIES), [A, B])
    assert "says which; Ray said: ip: 10.0.0.7 OOM | ip: x); tried 3" in outcome.failures[A.label]


def test_what_ray_says_of_the_workers_that_died_is_told_where_they_end_the_run():
    with pytest.raises(ClusterError, match=r"say which; Ray said: its node has died\); try"):
        run(Rounds(lambda _: [DeathEvent("its node has died"), *deaths(17)]), [A, B, C])


def test_a_worker_that_computes_other_vectors_ends_the_run_however_late():
    """Units would come to it faster than to any that works."""
    rounds = Rounds(lambda _: [done(B), UnitEvent(A.key, Ending.MISMATCH, "others, here")])
    with pytest.raises(SpaceMismatchError, match="others, here"):
        run(rounds, [A, B])


def test_a_model_that_does_not_load_on_one_worker_later_is_that_workers_trouble():
    rounds = Rounds(
        lambda _: [done(B), UnitEvent(A.key, Ending.FATAL, "the store says 503")],
        lambda _: [done(A)],
    )
    outcome, _ = run(rounds, [A, B])
    assert outcome.failures == {}
    assert len(rounds.units) == 2


def test_a_unit_whose_worker_is_broken_is_tried_on_another():
    rounds = Rounds(lambda _: [ended(A, Ending.BROKEN), done(B)], lambda _: [done(A)])
    outcome, _ = run(rounds, [A, B])
    assert outcome.failures == {}


def test_a_source_that_changed_is_planned_again_once_for_all_its_units():
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


def test_a_source_that_changes_again_fails():
    fresh = new_version(A)
    changed = lambda units: [ended(unit, Ending.CHANGED) for unit in units]  # noqa: E731
    rounds = Rounds(changed, changed)
    outcome, _ = run(rounds, [A], lambda _: [fresh])
    assert rounds.units == [[A], [fresh]]
    assert outcome.failures == {
        fresh.label: f"{fresh.label}: changed; it was planned again once already"
    }
    assert set(outcome.units) == {fresh.key}


def test_what_failed_of_the_old_version_does_not_count_once_the_new_one_is_done():
    second = a_unit(A.source, start=10)
    fresh = new_version(A)
    rounds = Rounds(lambda _: [ended(second, Ending.FAILED), ended(A, Ending.CHANGED)])
    outcome, _ = run(rounds, [A, second], lambda _: [fresh])
    assert outcome.failures == {}
    assert set(outcome.units) == {fresh.key}


def test_a_dead_unit_of_a_source_that_changed_is_not_tried_again():
    second = a_unit(A.source, start=10)
    fresh = new_version(A)
    rounds = Rounds(lambda _: [ended(A, Ending.CHANGED)])
    run(rounds, [A, second], lambda _: [fresh])
    assert rounds.units[1] == [fresh]


def test_a_source_that_cannot_be_planned_again_fails_alone_and_stays_in_the_plan():
    def gone(source: Source) -> list[WorkUnit]:
        raise InvalidInputError(f"input {source.uri}: found nothing there")

    rounds = Rounds(lambda _: [ended(A, Ending.CHANGED), done(B)])
    outcome, _ = run(rounds, [A, B], gone)
    assert outcome.failures == {
        A.label: f"{A.label}: changed; input {A.source.uri}: found nothing there"
    }
    assert set(outcome.units) == {A.key, B.key}


def test_a_source_of_which_nothing_is_left_is_no_failure():
    rounds = Rounds(lambda _: [ended(A, Ending.CHANGED), done(B)])
    outcome, _ = run(rounds, [A, B], lambda _: [])
    assert outcome.failures == {}
    assert set(outcome.units) == {B.key}
