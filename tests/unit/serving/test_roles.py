"""The words that clients have for the two roles."""

from __future__ import annotations

import pytest

from encoder.errors import InvalidInputError
from encoder.space import Role
from serving.roles import ROLE_WORDS, agreed_role, role_of

QUERY, DOCUMENT = Role.QUERY, Role.DOCUMENT


@pytest.mark.parametrize("word", ["query", "search_query", "retrieval.query", "web_search_query"])
def test_every_dialects_word_for_a_query_is_known(word: str):
    assert role_of(word, "input_type") is QUERY


@pytest.mark.parametrize(
    "word",
    [
        "document",
        "passage",
        "search_document",
        "retrieval.passage",
        "sentence",
        "classification",
        "clustering",
        "separation",
        "text-matching",
    ],
)
def test_everything_else_is_a_document(word: str):
    assert role_of(word, "input_type") is DOCUMENT


def test_case_and_blanks_do_not_matter():
    assert role_of(" Search_Query\n", "input_type") is QUERY


@pytest.mark.parametrize("word", ["", "querry", "image", "none", "query document", "search"])
def test_an_unknown_word_is_refused_naming_the_field_and_what_is_known(word: str):
    with pytest.raises(InvalidInputError) as refused:
        role_of(word, "input_type")
    message = str(refused.value)
    assert message.startswith("input_type: expected one of ")
    assert message.endswith(f"found {word!r}")
    assert all(known in message for known in ROLE_WORDS)


def test_where_nothing_names_a_role_the_default_holds():
    assert agreed_role({}, DOCUMENT) is DOCUMENT
    assert agreed_role({"model": None, "task": None}, QUERY) is QUERY


def test_one_name_wins_over_the_default_and_agreement_is_no_conflict():
    assert agreed_role({"model": None, "input_type": DOCUMENT}, QUERY) is DOCUMENT
    assert agreed_role({"model": QUERY, "input_type": QUERY}, DOCUMENT) is QUERY


def test_two_names_that_differ_are_refused_naming_both():
    with pytest.raises(InvalidInputError, match="model says query and task says document"):
        agreed_role({"model": QUERY, "input_type": None, "task": DOCUMENT}, QUERY)
