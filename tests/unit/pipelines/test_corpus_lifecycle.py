"""A corpus over months, in any order: its sources come, change and go; runs end well, or do not.

Whatever happens, its readers find every source whole, in one version, each row once; and a run that
ends well leaves just what the sources hold, and has computed nothing that was there.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from encoder.errors import InvalidInputError, SpaceMismatchError, TwofoldError
from encoder.settings import EncoderSettings
from encoder.space import Role
from pipelines.errors import (
    ConservationError,
    DuplicateIdError,
    LayoutMismatchError,
    PruneLimitError,
    UnitFailedError,
    UnreadableSourceError,
)
from pipelines.search import search
from pipelines.settings import Actors, EmbedCorpusSettings, OnInvalid, OnLong
from pipelines.verify import VerifySettings, verify
from support.corpus_reader import CorpusReader, Expected, ReadShard
from support.fake_encoder import FakeEncoder
from support.inline_job import Fate, Killed, Run, inline_jobs
from support.lake import KINDS, Content, Lake, Row

ENDINGS = ["jsonl", "jsonl", "parquet", "parquet", "csv", "jsonl.gz", "csv.gz", "txt", "txt.gz"]
NAMES = [f"{folder}/{name}" for folder in "ab" for name in "xy"]
INPUTS = [*[("",)] * 14, ("a",), ("b",), ("a", "b"), ("b", ""), ("*/*",), ("a/*.jsonl",)]
POLICIES = [OnInvalid.REJECT, OnInvalid.REJECT, None, OnInvalid.FAIL]
PUBLISHED = (UnitFailedError, DuplicateIdError, PruneLimitError)
"""What a run raises once it has published."""
HAPPENINGS = [*Fate, *Fate, "an outage", "a change", "a change", "a run", "a run"]
WRITES = st.tuples(st.integers(4, 11), st.just(True))
"""Of them four are before the first shard: the store is probed, and the output pinned."""
STEPS = st.tuples(st.integers(0, 60), st.just(False))
OTHER_LAYOUTS = [
    {"rows_per_shard": 7},
    {"unit_bytes": 77},
    {"embedding_dtype": "float16"},
    {"role": Role.QUERY},
    {"encoder": EncoderSettings(max_seq_length=6)},
]


@dataclass
class Life:
    """A run, and what was there when it began.

    Attributes:
        files: What it should find, and how often each had changed by then.
        sources: Those of which there were shards.
        names: Shards that existed.
        committed: Tokens of texts that it need not embed.
        is_alone: Whether no other run was at work in its time.
        has_seen_changes: Whether sources changed in its time.
    """

    run: Run
    files: dict[str, int]
    sources: set[str]
    names: set[str]
    committed: set[tuple[int, ...]]
    is_alone: bool
    has_seen_changes: bool = False

    @property
    def inputs(self) -> Sequence[str]:
        return self.run.settings.input

    @property
    def is_plain(self) -> bool:
        """Whether nothing happened to it."""
        return self.is_alone and not self.has_seen_changes and not self.run.has_met_fate

    def holds(self, uri: str, root: str) -> bool:
        """Whether a source lies under its inputs, that an input `root` had found."""
        folders = [given for given in self.inputs if "*" not in given]
        return root in self.inputs or any(uri.startswith(f"{folder}/") for folder in folders)


@dataclass
class Known:
    """What is known of the corpus.

    Attributes:
        exact: What readers find of a source, since a run ended well.
        whole: Sources of which readers have had all rows of a version.
        current: Those of which they have had the version that is there: how often it had changed.
        valid: Shards of versions that are there: source, and how often that had changed.
        roots: Input that had found a source.
        may_go: Sources that a run at work may prune.
        is_crossed: Whether two runs were at work at once, so that the index may be behind `data/`.
        is_littered: Whether a run has ended before it could publish, or has failed units.
    """

    exact: dict[str, Content] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    current: dict[str, int] = field(default_factory=dict)
    valid: dict[str, tuple[str, int]] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    may_go: set[str] = field(default_factory=set)
    is_crossed: bool = False
    is_littered: bool = False


class CorpusLife(RuleBasedStateMachine):
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lake = Lake(self.folder / "in")
        self.corpus = CorpusReader(self.folder / "out")
        self.known = Known()
        self.at_work: list[Life] = []
        self.removed: dict[str, tuple[Content, int]] = {}
        self.rows_made = self.runs_begun = 0

    @initialize(
        has_numbers=st.booleans(),
        has_tag=st.booleans(),
        on_long=st.sampled_from(OnLong),
        rows_per_shard=st.sampled_from([1, 2, 3, 5]),
        unit_bytes=st.sampled_from([60, 150, 400, 100_000]),
        batch_rows=st.sampled_from([2, 1024]),
    )
    def a_corpus_is_begun(
        self, has_numbers, has_tag, on_long, rows_per_shard, unit_bytes, batch_rows
    ):
        self.has_numbers, self.has_tag = has_numbers, has_tag
        self.expected = Expected(on_long, has_tag)
        self.jobs = inline_jobs(batch_rows)
        self.jobs.__enter__()
        self.settings = EmbedCorpusSettings(
            input=(str(self.lake.folder),),
            output=str(self.corpus.folder),
            columns=("tag",) if has_tag else (),
            on_long=on_long,
            chunk_overlap=0,
            rows_per_shard=rows_per_shard,
            unit_bytes=unit_bytes,
            on_invalid=OnInvalid.REJECT,
        )
        # Something that tells the type of ids.
        self.lake.write("a/x.jsonl", Content("jsonl", self.rows([("good", 3)])))
        self.finish(self.begin(self.settings))

    def teardown(self):
        for life in self.at_work:
            life.run.kill()
        if hasattr(self, "jobs"):
            self.jobs.__exit__(None, None, None)

    # What happens

    @rule(data=st.data(), times=st.integers(1, 4))
    def the_lake_changes(self, data, times):
        for _ in range(times):
            self.change_the_lake(data)

    @rule(
        data=st.data(),
        happenings=st.lists(
            st.tuples(WRITES | STEPS, st.sampled_from(HAPPENINGS)), min_size=1, max_size=4
        ),
    )
    def a_run_meets_much_and_the_next_nothing(self, data, happenings):
        self.change_the_lake(data)
        life = self.begin(self.drawn_settings(data))
        for (steps, only_writes), what in happenings:
            if not self.go_on(life, steps, only_writes=only_writes):
                self.happen(life, what, data)
        self.finish(life)
        self.finish(self.begin(self.drawn_settings(data)))

    def happen(self, life: Life, what: object, data) -> None:
        if what == "a change":
            self.change_the_lake(data)
        elif what == "a run":
            self.finish(self.begin(self.drawn_settings(data)))
        elif what == "an outage":
            self.go_on(life, 40, [Fate.FAIL] * 40)
        elif isinstance(what, Fate):
            self.go_on(life, 1, [what])

    @rule(data=st.data())
    def somebody_looks_or_errs(self, data):
        quiet = [self.a_search_finds_what_is_live]
        if self.lake.present:
            quiet += [self.a_run_with_another_layout_is_refused]
        if self.sound_shards():
            quiet += [self.damage_is_found_and_mended] * 2
        what = data.draw(st.sampled_from(quiet))
        note(what.__name__)
        what(data)

    def a_run_with_another_layout_is_refused(self, data):
        layout = data.draw(st.sampled_from(OTHER_LAYOUTS))
        before = self.corpus.snapshot()
        run = Run(self.settings.model_copy(update=layout), "other")
        run.go_on()
        assert isinstance(run.error, (LayoutMismatchError, SpaceMismatchError))
        assert self.corpus.snapshot() == before

    def damage_is_found_and_mended(self, data):
        how = data.draw(st.sampled_from(["lost", "cut", "doubled", "unlisted"]))
        name = data.draw(st.sampled_from(self.sound_shards()))
        file = self.corpus.folder / "data" / name
        bad = file.with_name("0" * 32 + name[32:]) if how == "doubled" else file
        if how == "cut":
            file.write_bytes(file.read_bytes()[:-9])
        elif how == "doubled":
            shutil.copy(file, bad)
        elif how == "unlisted":
            (self.corpus.folder / "_index.json").unlink()
        else:
            file.unlink()
        assert self.findings()
        if how != "unlisted":
            bad.unlink(missing_ok=True)
        self.known = Known(roots=self.known.roots, is_littered=True)
        self.finish(self.begin(self.settings))
        assert self.findings() == []

    def a_search_finds_what_is_live(self, data):
        k = data.draw(st.integers(1, 30))
        if self.known.is_crossed or self.duplicates():
            return
        shards = [shard for found in self.corpus.live().values() for shard in found]
        live = {row[0] for shard in shards for row in shard.rows}
        (found,) = search(self.settings.output, ["anything"], k, encoder=FakeEncoder())
        ids = [hit.id for hit in found.hits]
        assert len(ids) == len({*ids} & live) == min(k, len(live))

    # Sources

    def row(self, kind: str, words: int) -> Row:
        self.rows_made += 1
        name = f"{self.rows_made:06}"
        text = " ".join([f"t{name}", *(f"w{name}x{number}" for number in range(words))])
        if kind == "poison":
            text = f"t{name} poison"
        tag = f"tag {self.rows_made % 3}" if self.rows_made % 4 else None
        return Row(kind, self.rows_made if self.has_numbers else f"k{name}", text, tag)

    def rows(self, drawn: Iterable[tuple[str, int]]) -> tuple[Row, ...]:
        return tuple(self.row(kind, words) for kind, words in drawn)

    def drawn_rows(self, data, ending: str, most: int) -> tuple[Row, ...]:
        kind = st.sampled_from([*["good"] * 12, *KINDS[ending.removesuffix(".gz")]])
        row = st.tuples(kind, st.sampled_from([1, 3, 6, 12, 25]))
        return self.rows(data.draw(st.lists(row, max_size=most)))

    def drawn_content(self, data) -> Content:
        # CSV and text have no numbers, text no columns.
        untold = ("csv", "txt") if self.has_numbers else ("txt",) if self.has_tag else ()
        endings = [ending for ending in ENDINGS if not ending.startswith(untold)]
        ending = data.draw(st.sampled_from(endings))
        may_break = ending == "parquet" or ending.endswith(".gz")
        return Content(
            ending,
            self.drawn_rows(data, ending, 9),
            row_group=data.draw(st.integers(1, 4)),
            has_numbers=self.has_numbers,
            is_damaged=may_break and data.draw(st.sampled_from([*[False] * 15, True])),
        )

    def change_the_lake(self, data) -> None:
        changes = [self.a_file_comes] * 2
        if self.lake.present:
            changes += [self.a_file_grows, self.a_file_is_replaced, self.a_file_is_touched]
            changes += [self.a_file_is_renamed, self.a_file_goes, self.a_file_goes]
            changes += [self.rows_move_to_another_file]
        if self.removed:
            changes += [self.a_file_comes_back]
        change = data.draw(st.sampled_from(changes))
        note(change.__name__)
        change(data)

    def a_file(self, data) -> str:
        return data.draw(st.sampled_from(sorted(self.lake.present)))

    def a_file_comes(self, data):
        content = self.drawn_content(data)
        name = data.draw(st.sampled_from(NAMES))
        self.is_changed(self.lake.write(f"{name}.{content.ending}", content))

    def a_file_grows(self, data):
        uri = self.a_file(data)
        content = self.lake.present[uri]
        more = self.drawn_rows(data, content.ending, 4)
        self.rewrite(uri, replace(content, rows=(*content.rows, *more)))

    def a_file_is_replaced(self, data):
        uri = self.a_file(data)
        content = self.lake.present[uri]
        if data.draw(st.booleans(), label="of the same size"):
            rows = tuple(replace(row, text=f"s{row.text[1:]}") for row in content.rows)
        else:
            rows = self.drawn_rows(data, content.ending, 9)
        self.rewrite(uri, replace(content, rows=rows, is_damaged=False))

    def a_file_is_touched(self, data):
        uri = self.a_file(data)
        self.rewrite(uri, self.lake.present[uri])

    def a_file_is_renamed(self, data):
        uri = self.a_file(data)
        name = data.draw(st.sampled_from(NAMES))
        to = f"{self.lake.folder}/{name}.{self.lake.present[uri].ending}"
        if to not in self.lake.present:
            self.lake.put_back(to, *self.lake.remove(uri))
            self.is_changed(uri)
            self.is_changed(to)

    def a_file_goes(self, data):
        uri = self.a_file(data)
        self.removed[uri] = self.lake.remove(uri)
        self.is_changed(uri)

    def a_file_comes_back(self, data):
        uri = data.draw(st.sampled_from(sorted(self.removed)))
        if uri not in self.lake.present:
            self.lake.put_back(uri, *self.removed[uri])
            self.is_changed(uri)

    def rows_move_to_another_file(self, data):
        uri, to = self.a_file(data), self.a_file(data)
        here, there = self.lake.present[uri], self.lake.present[to]
        if uri == to or "txt" in (here.format, there.format):
            return
        moved = [row for row in here.rows if row.kind == "good"]
        if not data.draw(st.booleans(), label="and stay, too"):
            self.rewrite(uri, replace(here, rows=tuple(r for r in here.rows if r not in moved)))
        self.rewrite(to, replace(there, rows=(*there.rows, *moved)))

    def rewrite(self, uri: str, content: Content) -> None:
        self.lake.write(str(Path(uri).relative_to(self.lake.folder)), content)
        self.is_changed(uri)

    def is_changed(self, uri: str) -> None:
        for life in self.at_work:
            life.has_seen_changes = True
            if uri not in self.lake.present and life.run.settings.prune:
                self.known.may_go.add(uri)
        self.check_readers()

    # Runs

    def drawn_settings(self, data) -> EmbedCorpusSettings:
        inputs = data.draw(st.sampled_from(INPUTS))
        drawn: dict[str, Any] = {
            "input": tuple(f"{self.lake.folder}/{name}".rstrip("/") for name in inputs),
            "on_invalid": data.draw(st.sampled_from(POLICIES)),
            "prune": data.draw(st.booleans()),
            "prune_max": data.draw(st.sampled_from([1.0, 0.5, 0.1, 0.0])),
            "check_ids": data.draw(st.sampled_from([True, True, False])),
            "actors": data.draw(st.sampled_from([Actors(min=1, max=1), Actors(min=1, max=2)])),
            "units_in_flight": data.draw(st.sampled_from([1, 2])),
        }
        return self.settings.model_copy(update=drawn)

    def files_of(self, inputs: Iterable[str]) -> list[str]:
        def is_in(path: str, given: str) -> bool:
            return Path(path).match(given) if "*" in given else path.startswith(f"{given}/")

        return [path for path in self.lake.present if any(is_in(path, given) for given in inputs)]

    def begin(self, given: EmbedCorpusSettings) -> Life:
        for other in self.at_work:
            other.is_alone = False
            self.known.is_crossed = True
        self.runs_begun += 1
        files = {uri: self.lake.changes[uri] for uri in self.files_of(given.input)}
        run = Run(given, f"run {self.runs_begun}")
        names = {*self.corpus.names()}
        sources = {self.corpus.shard(name).source for name in names}
        life = Life(run, files, sources, names, self.committed(), not self.at_work)
        self.at_work.append(life)
        if given.prune:
            self.known.may_go |= self.lake.history.keys() - self.lake.present.keys()
        return life

    def committed(self) -> set[tuple[int, ...]]:
        """Tokens of the texts that nobody has to embed: they are there, in shards that count."""
        units: dict[str, list[ReadShard]] = {}
        for name in self.corpus.names():  # in the order of their ordinals
            shard = self.corpus.shard(name)
            so_far = units.setdefault(shard.unit, [])
            if shard.footer["ordinal"] == len(so_far) and self.is_current(shard):
                so_far.append(shard)
        there: dict[str, set[bytes]] = {}
        for shard in (shard for so_far in units.values() for shard in so_far):
            there.setdefault(shard.source, set()).update(row[-1] for row in shard.rows)
        committed, todo = set(), set()
        for uri, content in self.lake.present.items():
            for text_hash, tokens in self.expected.texts(uri, content).items():
                (committed if text_hash in there.get(uri, ()) else todo).add(tokens)
        return committed - todo

    def is_current(self, shard: ReadShard) -> bool:
        uri = shard.source
        return uri in self.lake.present and self.lake.version(uri) == shard.version

    def finish(self, life: Life) -> None:
        self.go_on(life, None)

    def go_on(
        self,
        life: Life,
        steps: int | None,
        fates: Sequence[Fate] = (),
        *,
        only_writes: bool = False,
    ) -> bool:
        """Let a run do some steps, or all that are left; return whether it is over."""
        if life.run.is_over:
            return True
        if life.run.go_on(steps, fates, only_writes=only_writes):
            self.at_work.remove(life)
            note(f"{life.run.run_id} ends: {life.run.error!r}")
            self.is_over(life)
        self.check_readers()
        if not self.at_work and not self.known.is_crossed:
            self.known.may_go.clear()
        return life.run.is_over

    def is_over(self, life: Life) -> None:
        error = life.run.error
        assert error is None or isinstance(error, (TwofoldError, Killed)), error
        assert not isinstance(error, ConservationError), error
        has_published = error is None or isinstance(error, PUBLISHED)
        if has_published and self.corpus.report()["run_id"] != life.run.run_id:
            # Nothing says which units failed.
            assert life.run.has_met_fate
            has_published = False
        if life.is_plain and not has_published:
            self.check_refusal(life)
        is_still = not self.at_work and not life.has_seen_changes
        if is_still and has_published:
            self.check_published(life)
            return
        self.known.is_littered |= not isinstance(error, InvalidInputError)
        # It may have published, and others at work may do so yet.
        self.known.exact = {
            uri: content
            for uri, content in self.known.exact.items()
            if self.lake.present.get(uri) is content and not life.has_seen_changes
        }

    # What must be so

    def check_refusal(self, life: Life) -> None:
        """A run that nothing happened to finds no file below an input, or one that is damaged."""
        error = life.run.error
        if isinstance(error, UnreadableSourceError):
            assert life.run.settings.on_invalid is not OnInvalid.REJECT
            assert any(self.lake.present[uri].is_damaged for uri in life.files)
        else:
            assert isinstance(error, InvalidInputError), error
            assert not all(self.files_of([given]) for given in life.inputs)
        assert {*self.corpus.names()} == life.names

    def check_readers(self) -> None:
        """What readers had they have still: at any time, whatever a run is at."""
        known, names = self.known, {*self.corpus.names()}
        for name, (uri, changes) in known.valid.items():
            assert name in names or self.lake.changes[uri] != changes, f"{name}: deleted, is valid"
        known.valid = {}
        for name in names:
            shard = self.corpus.shard(name)
            changes = self.lake.changes[shard.source]
            # An older plan than the file may yet retire it.
            is_planned = all(life.files.get(shard.source) == changes for life in self.at_work)
            if self.is_current(shard) and is_planned:
                known.valid[name] = (shard.source, changes)
        if known.is_crossed:
            return
        assert {*self.corpus.listed()} <= names, "listed, and not there"
        live = self.corpus.live()
        assert known.whole - live.keys() <= known.may_go, "a source that readers had is gone"
        known.whole &= live.keys()
        for uri, shards in live.items():
            self.check_source(uri, shards)

    def check_source(self, uri: str, shards: Sequence[ReadShard]) -> None:
        """It is there in one version, no row twice; whole, and up to date, where it was before."""
        known, changes = self.known, self.lake.changes[uri]
        (version,) = {shard.version for shard in shards}
        rows = self.expected.rows(uri, self.lake.history[uri][version])
        found = Counter(row for shard in shards for row in shard.rows)
        assert found <= rows, f"{uri}: rows that it has not, or has once"
        assert found == rows or uri not in known.whole, f"{uri}: rows are lost"
        is_current = self.is_current(shards[0])
        was_current = uri in self.lake.present and known.current.get(uri) == changes
        assert is_current or not was_current, f"{uri}: back to an older version"
        if rows and found == rows:
            known.whole.add(uri)
            if is_current:
                known.current[uri] = changes

    def check_published(self, life: Life) -> None:
        """Of all that a run has planned and not failed, readers find what is there now."""
        known, report, index = self.known, self.corpus.report(), self.corpus.index()
        failed = {label.partition("#")[0] for label in report["failures"]}
        told = str(life.run.error)
        assert ("work units failed" in told) == bool(failed)
        live, unlisted = self.corpus.live(), self.corpus.unlisted()
        done = {uri: self.lake.present[uri] for uri in life.files if uri not in failed}
        known.exact = {uri: c for uri, c in known.exact.items() if uri not in failed} | done
        if life.run.settings.prune:
            self.check_pruned(life, {*live, *unlisted}, is_refused="--prune-max" in told)
        for uri, content in known.exact.items():
            self.check_exact(uri, content, live.get(uri, []))
        assert not unlisted.keys() & done.keys(), "left in data/"
        is_littered = known.is_littered or bool(failed)
        assert is_littered or not unlisted, "left in data/"
        known.roots = {source["uri"]: source["root"] for source in index["sources"]}
        known.is_crossed, known.is_littered = False, bool(unlisted or failed)
        duplicates = self.duplicates()
        assert not (duplicates and index["ids_checked"])
        if life.run.settings.check_ids and life.is_alone:
            assert ("ids are not unique" in told) == duplicates
        if not unlisted and not failed and live.keys() <= known.exact.keys():
            assert self.findings() == []
        if life.is_alone:
            self.check_account(life, report)
        if life.is_plain:
            self.check_failed(life, failed)
            self.check_that_nothing_is_left_to_do(life, has_failed=bool(failed))

    def check_pruned(self, life: Life, there: Iterable[str], *, is_refused: bool) -> None:
        """What is gone under a run's inputs is pruned, unless it is too much."""
        roots, most = self.known.roots, life.run.settings.prune_max
        under = {u for u in {*life.sources, *there} if life.holds(u, roots.get(u, ""))}
        gone = under - self.lake.present.keys()
        if life.is_plain:
            assert is_refused == (len(gone) > most * len(under))
        if not is_refused:
            assert not gone & {*there}, "gone, and not pruned"
            kept = {*self.lake.present, *there}
            self.known.exact = {uri: c for uri, c in self.known.exact.items() if uri in kept}

    def check_exact(self, uri: str, content: Content, shards: Sequence[ReadShard]) -> None:
        found = Counter(row for shard in shards for row in shard.rows)
        assert found == self.expected.rows(uri, content), f"{uri}: other rows"
        left = self.expected.rejects(uri, content)
        for reject in self.corpus.rejects(uri):
            assert reject["source"].partition("#")[0] == uri
            told = (reject["id"], reject["reason"])
            alike = [one for one in left if one[0] == told[0] and one[1] in told[1]]
            assert alike, f"{uri}: {told} is rejected, expected {left}"
            left.remove(alike[0])
        assert left == [], f"{uri}: not rejected"

    def check_account(self, life: Life, report: dict[str, Any]) -> None:
        """A run's report counts what it wrote and deleted; it computed nothing that was there."""
        names = {*self.corpus.names()}
        ours = [self.corpus.shard(name) for name in names]
        ours = [shard for shard in ours if shard.footer["run_id"] == life.run.run_id]
        assert report["shards"] == len(ours)
        for count in ("documents", "rejected", "rows", "unreadable"):
            assert report[count] == sum(shard.footer[count] for shard in ours), count
        assert report["source_rows"] == report["documents"] + report["rejected"]
        assert report["duplicate_shards"] == 0
        assert report["retired_shards"] == len(life.names - names)
        if not life.run.has_met_fate:
            assert sum(report["rejected_by_reason"].values()) == report["rejected"]
        assert not life.committed & life.run.texts, "computed again"

    def check_failed(self, life: Life, failed: set[str]) -> None:
        for uri in failed:
            content, policy = self.lake.present[uri], life.run.settings.on_invalid
            is_bad = content.is_damaged if policy is None else content.has_bad_rows
            assert is_bad, f"{uri} failed"
            assert policy is not OnInvalid.REJECT

    def check_that_nothing_is_left_to_do(self, life: Life, *, has_failed: bool) -> None:
        before = self.corpus.snapshot()
        again = Run(life.run.settings, f"{life.run.run_id} again")
        again.go_on()
        assert type(again.error) is type(life.run.error)
        assert has_failed or not again.texts
        assert has_failed or self.corpus.snapshot() == before

    def duplicates(self) -> bool:
        chunk = 2 if self.has_tag else 1
        shards = map(self.corpus.shard, self.corpus.listed())
        ids = Counter((str(row[0]), row[chunk]) for shard in shards for row in shard.rows)
        return any(count > 1 for count in ids.values())

    def findings(self) -> list[str]:
        """What `verify` finds, apart from ids that are there twice in the sources, too."""
        found = verify(VerifySettings(output=self.settings.output)).findings
        return [finding for finding in found if "is not unique" not in finding]

    def sound_shards(self) -> list[str]:
        """Live shards of a corpus without litter that can be made again."""
        if self.known.is_littered or self.known.is_crossed:
            return []
        listed = self.corpus.listed()
        shards = {name: self.corpus.shard(name) for name in listed}
        if not all(shard.source in self.known.exact for shard in shards.values()):
            return []
        return [name for name, shard in shards.items() if self.is_current(shard)]


@pytest.mark.parametrize("lives", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_every_row_is_there_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, lives: int
):
    # Each life in the same folder: a unit's name is of its file's path, and decides the order.
    CorpusLife.folder = tmp_path_factory.mktemp("lives") / "lake"
    run_state_machine_as_test(
        CorpusLife,
        settings=settings(
            max_examples=lives,
            stateful_step_count=15,
            derandomize=True,
            deadline=None,
            # A life of fifteen steps is read as it is; to make it shorter takes minutes.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
