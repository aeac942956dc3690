"""Which shards are live and which are retired when sources change or go."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.corpus.index import IndexedShard
from pipelines.driver.retire import Retirement, plan_retirement, sources_under
from pipelines.errors import PruneLimitError
from pipelines.source.units import WorkUnit
from support.corpora import a_source, a_unit, an_indexed_shard


def unit_of(name: str, version: str = "v1", start: int = 0, root: str = "/in") -> WorkUnit:
    return a_unit(a_source(f"{root}/{name}", version, root), start)


def decide(
    shards: Sequence[IndexedShard],
    units: Sequence[WorkUnit],
    *,
    incomplete: Collection[str] = (),
    listed: dict[str, str] | None = None,
    now: dict[str, str] | None = None,
    prune_max: float | None = None,
) -> Retirement:
    return plan_retirement(
        shards,
        units={unit.key: unit for unit in units},
        incomplete=incomplete,
        roots={unit.source.root for unit in units},
        listed=listed,
        now=now or {},
        prune_max=prune_max,
    )


OLD, NEW = unit_of("a", "v1"), unit_of("a", "v2")
OLD_SHARDS = [an_indexed_shard(OLD, 0, last=False), an_indexed_shard(OLD, 1)]
NEW_SHARDS = [an_indexed_shard(NEW, 0, last=False), an_indexed_shard(NEW, 1)]
URI = OLD.source.uri


def test_unchanged_sources_stay_live():
    found = decide(OLD_SHARDS, [OLD])
    assert found == Retirement(tuple(OLD_SHARDS), (), ())


def test_a_changed_source_retires_its_old_shards_once_the_new_ones_are_complete():
    found = decide([*OLD_SHARDS, *NEW_SHARDS], [NEW])
    assert found == Retirement(tuple(NEW_SHARDS), tuple(OLD_SHARDS), ())


def test_a_source_that_is_cut_into_other_units_retires_those_of_before():
    """Its version is the same: it is read as another format, say."""
    recut = unit_of("a", "v1", start=7)
    shard = an_indexed_shard(recut)
    found = decide([*OLD_SHARDS, shard], [recut], listed={URI: "v1"}, now={URI: "v1"})
    assert found == Retirement((shard,), tuple(OLD_SHARDS), ())


def test_until_then_the_old_version_stays_live_whole_and_the_new_one_waits():
    found = decide([*OLD_SHARDS, NEW_SHARDS[0]], [NEW], incomplete={URI})
    assert found == Retirement(tuple(OLD_SHARDS), (), ())


def test_a_new_source_is_live_as_far_as_it_got():
    found = decide(NEW_SHARDS[:1], [NEW], incomplete={URI})
    assert found.live == (NEW_SHARDS[0],)


@pytest.mark.parametrize("planned", [[unit_of("a", "v3")], [unit_of("b")]])
@pytest.mark.parametrize("order", [1, -1])
def test_a_version_that_never_was_complete_does_not_join_the_listed_one(planned, order):
    shards = [*OLD_SHARDS, NEW_SHARDS[0]][::order]
    found = decide(shards, planned, incomplete={URI}, listed={URI: "v1"})
    assert {shard.footer.version for shard in found.live} == {"v1"}
    assert found.retired == ()


def test_of_two_versions_that_nothing_lists_the_one_with_most_rows_is_live():
    found = decide([NEW_SHARDS[0], *OLD_SHARDS], [unit_of("b")])
    assert {shard.name for shard in found.live} == {shard.name for shard in OLD_SHARDS}


def test_the_last_of_several_versions_retires_all_others():
    third = unit_of("a", "v3")
    shard = an_indexed_shard(third)
    found = decide([*OLD_SHARDS, *NEW_SHARDS, shard], [third])
    assert found.live == (shard,)
    assert len(found.retired) == 4


TWENTY = [unit_of(f"s{n:02}") for n in range(20)]
ALL_TWENTY = [an_indexed_shard(unit) for unit in TWENTY]


def test_sources_that_are_gone_stay_live_and_are_named_unless_pruned():
    found = decide(ALL_TWENTY, TWENTY[2:])
    assert len(found.live) == 20
    assert found.gone == ("/in/s00", "/in/s01")
    assert found.retired == ()


def test_pruning_retires_them_within_its_bound():
    found = decide(ALL_TWENTY, TWENTY[2:], prune_max=0.1)
    assert found.retired == tuple(ALL_TWENTY[:2])
    assert found.live == tuple(ALL_TWENTY[2:])
    assert (found.gone, found.refused) == ((), None)


def test_what_another_job_has_committed_since_the_plan_is_not_gone():
    late = unit_of("late")
    shards = [*ALL_TWENTY, an_indexed_shard(late)]
    assert sources_under(shards, {"/in"}) - {unit.source.uri for unit in TWENTY[2:]} == {
        "/in/s00",
        "/in/s01",
        late.source.uri,
    }
    for listed in ({}, {late.source.uri: "v1"}):
        found = decide(
            shards, TWENTY[2:], listed=listed, now={late.source.uri: "v1"}, prune_max=0.1
        )
        assert found.retired == tuple(ALL_TWENTY[:2])
        assert found.live == (*ALL_TWENTY[2:], shards[-1])


def test_beyond_its_bound_nothing_is_pruned_and_the_refusal_says_how_many():
    found = decide(ALL_TWENTY, TWENTY[3:], prune_max=0.1)
    assert len(found.live) == 20
    assert found.retired == ()
    assert len(found.gone) == 3
    assert isinstance(found.refused, PruneLimitError)
    assert "3 of 20 sources" in str(found.refused)
    assert "10%" in str(found.refused)


def test_sources_outside_the_inputs_do_not_widen_the_bound():
    elsewhere = [an_indexed_shard(unit_of(f"x{n}", root="/other")) for n in range(20)]
    found = decide([*ALL_TWENTY, *elsewhere], TWENTY[3:], prune_max=0.1)
    assert found.refused is not None


def test_a_bound_of_nothing_prunes_nothing_and_one_of_all_everything():
    assert decide(ALL_TWENTY, TWENTY[1:], prune_max=0).refused is not None
    assert len(decide(ALL_TWENTY, [unit_of("new")], prune_max=1).retired) == 20


def test_pruning_takes_the_leftovers_of_other_versions_along():
    shards = [*ALL_TWENTY, *OLD_SHARDS, NEW_SHARDS[0]]
    found = decide(shards, TWENTY, listed={URI: "v1"}, prune_max=0.1)
    assert {shard.name for shard in found.retired} == {
        shard.name for shard in [*OLD_SHARDS, NEW_SHARDS[0]]
    }


def test_what_a_prune_did_not_come_to_delete_stays_out_of_the_index_and_is_pruned_by_the_next():
    b = an_indexed_shard(unit_of("b"))
    given = ([*OLD_SHARDS, b], [unit_of("b")])
    found = decide(*given, listed={b.footer.source: "v1"})
    assert found == Retirement((b,), (), ())
    assert decide(*given, listed={b.footer.source: "v1"}, prune_max=1) == Retirement(
        (b,), tuple(OLD_SHARDS), ()
    )
    # Where it is there, it is another job's; where nothing is published, nothing was pruned.
    assert decide(*given, listed={b.footer.source: "v1"}, now={URI: "v1"}).live == (*OLD_SHARDS, b)
    assert decide(*given).live == (*OLD_SHARDS, b)


def test_gone_sources_outside_the_inputs_are_not_touched():
    elsewhere = [an_indexed_shard(unit_of("x", root=root)) for root in ("/other", "/input", "/i")]
    found = decide([*ALL_TWENTY, *elsewhere], TWENTY, prune_max=1)
    assert (found.retired, found.gone) == ((), ())
    assert len(found.live) == 23


def test_a_source_below_an_input_counts_as_under_it_whatever_input_had_named_it():
    below = an_indexed_shard(unit_of("x", root="/in/sub"))
    assert decide([*ALL_TWENTY, below], TWENTY).gone == ("/in/sub/x",)


@pytest.mark.parametrize(
    ("root", "is_under"),
    [
        *(("/in/a", True), ("/in", True), ("/in/", True), ("/", True), ("/in/a/x.jsonl", True)),
        *(("/i", False), ("/in/b", False), ("s3://in/a", False), ("in/a", False)),
    ],
)
def test_a_source_is_under_the_folders_above_it_and_under_itself(root, is_under):
    shard = an_indexed_shard(a_unit(a_source("/in/a/x.jsonl", "v1", "/elsewhere")))
    assert sources_under([shard], [root]) == ({"/in/a/x.jsonl"} if is_under else set())


versions = st.sampled_from(["v1", "v2", "v3"])
names = st.sampled_from(["a", "b", "c"])


@settings(deadline=None)
@given(
    present=st.sets(st.tuples(names, versions, st.integers(0, 1)), max_size=12),
    planned=st.dictionaries(names, versions),
    incomplete=st.sets(names),
    listed=st.dictionaries(names, versions),
    prune_max=st.none() | st.sampled_from([0.0, 0.5, 1.0]),
)
def test_no_source_loses_its_last_live_shard_unless_it_is_pruned(
    present, planned, incomplete, listed, prune_max
):
    shards = [an_indexed_shard(unit_of(name, version, start)) for name, version, start in present]
    units = [unit_of(name, version, start) for name, version in planned.items() for start in (0, 1)]
    # A source is incomplete where a unit of its plan has no shard.
    existing = {shard.name.unit for shard in shards}
    lacking = {unit.source.uri for unit in units if unit.key not in existing}
    found = decide(
        shards,
        units,
        incomplete=lacking | {f"/in/{name}" for name in incomplete},
        listed={f"/in/{name}": version for name, version in listed.items()},
        prune_max=prune_max,
    )
    live = {shard.name for shard in found.live}
    retired = {shard.name for shard in found.retired}
    assert not live & retired
    assert len(found.live) == len(live)
    assert len(found.retired) == len(retired)
    assert live | retired <= existing_names(shards)
    for name in ("a", "b", "c"):
        of_source = [shard for shard in shards if shard.footer.source == f"/in/{name}"]
        live_versions = {s.footer.version for s in of_source if s.name in live}
        assert len(live_versions) <= 1
        # Before, where it is gone and the published index does not list it any more.
        is_pruned = name not in planned and (prune_max is not None or name not in listed)
        assert live_versions or is_pruned or not of_source
        if name in planned and not live_versions <= {planned[name]}:
            assert not retired & existing_names(of_source)


def existing_names(shards: Sequence[IndexedShard]) -> set[object]:
    return {shard.name for shard in shards}
