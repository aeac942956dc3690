"""Column names in messages."""

from __future__ import annotations

from pipelines.source.corpus_columns import shown_names


def test_a_few_names_are_shown_as_they_are():
    assert shown_names(["id", "téxt"]) == "'id', 'téxt'"


def test_names_that_no_terminal_should_see_are_escaped():
    assert shown_names(["\x1b[2J", "a\nb", "\ud800"]) == r"'\x1b[2J', 'a\nb', '\ud800'"


def test_a_message_is_not_as_large_as_a_file_wants():
    shown = shown_names(["x" * 10**6] * 1000)
    assert shown.startswith(f"'{'x' * 60}'..., '")
    assert shown.endswith("... and 980 more")
    assert len(shown) < 2000
