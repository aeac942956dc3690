"""The corpus job's settings are checked before anything is read."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipelines.columns import RESERVED
from pipelines.corpus.pin import CorpusLayout
from pipelines.settings import Actors, EmbedCorpusSettings
from pipelines.source.corpus_columns import CorpusColumns
from pipelines.source.units import Format


def settings(**changes: object) -> EmbedCorpusSettings:
    return EmbedCorpusSettings(**{"input": ("docs",), "output": "out", **changes})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("4", Actors(min=4, max=4)),
        ("2:8", Actors(min=2, max=8)),
        (3, Actors(min=3, max=3)),
        ({"min": 1, "max": 2}, Actors(min=1, max=2)),
    ],
)
def test_an_actor_pool_is_a_number_or_a_range(given: object, expected: Actors):
    assert settings(actors=given).actors == expected


@pytest.mark.parametrize("given", ["", "0", "8:2", "a", "1:2:3", ":3", "-1", 0])
def test_an_actor_pool_that_makes_no_sense_is_refused(given: object):
    with pytest.raises(ValidationError):
        settings(actors=given)


@pytest.mark.parametrize("name", RESERVED)
def test_the_jobs_own_columns_cannot_be_carried(name: str):
    with pytest.raises(ValidationError, match=f"'{name}'.*rename"):
        settings(columns=("title", name))
    with pytest.raises(ValidationError, match=f"'{name}'.*rename"):
        settings(id_column=name)


def test_a_column_is_carried_once():
    with pytest.raises(ValidationError, match=r"'id'.*more than once"):
        settings(columns=("title", "id"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a,b", ("a", "b")), (["a, b", "c"], ("a", "b", "c")), ("", ()), (("a",), ("a",))],
)
def test_columns_may_be_separated_by_commas(given: object, expected: tuple[str, ...]):
    assert settings(columns=given).columns == expected


def test_a_single_input_or_text_column_needs_no_list():
    given = settings(input="s3://bucket/docs", text_column="body")
    assert given.input == ("s3://bucket/docs",)
    assert given.text_column == ("body",)


def test_a_text_column_may_contain_a_comma():
    assert settings(text_column="a,b").text_column == ("a,b",)


def test_auto_and_nothing_are_the_same_input_format():
    assert settings(input_format="auto") == settings(input_format=None) == settings()
    assert settings(input_format="jsonl").input_format is Format.JSONL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input", ()),
        ("text_column", ()),
        ("output", ""),
        ("rows_per_shard", 0),
        ("unit_bytes", 0),
        ("chunk_overlap", -1),
        ("prune_max", 1.5),
        ("num_gpus_per_actor", -1),
        ("num_cpus_per_actor", 0),
        ("batch_timeout_s", 0),
        ("embedding_dtype", "float64"),
        ("on_long", "cut"),
        ("unheard_of", 1),
    ],
)
def test_a_value_out_of_its_range_is_refused(name: str, value: object):
    with pytest.raises(ValidationError, match=name):
        settings(**{name: value})


def test_settings_cannot_be_changed_after_they_were_read():
    given = settings()
    with pytest.raises(ValidationError, match="frozen"):
        given.output = "elsewhere"


def test_what_a_corpus_is_pinned_to_by_default_is_the_same_in_every_version_of_twofold():
    # Who gave no flag has these pinned: with others the next run of the same command is refused.
    layout = CorpusLayout.of(settings(), CorpusColumns("id", ("text",), pa.schema([])))
    assert asdict(layout) == {
        "role": "document",
        "id_column": "id",
        "text_columns": ("text",),
        "carried": (),
        "embedding_dtype": "float32",
        "on_long": "truncate",
        "chunk_overlap": 0,
        "rows_per_shard": 10_000,
        "unit_bytes": 67_108_864,
    }
    assert settings(on_long="chunk").chunk_overlap == 64
