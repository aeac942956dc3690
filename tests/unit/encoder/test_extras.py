"""Packages of an extra."""

from __future__ import annotations

import pytest

from encoder.errors import InvalidInputError
from encoder.extras import import_extra, require_extra


def test_what_is_installed_is_not_complained_about():
    require_extra("evaluate", "json", "csv")


def test_a_missing_package_is_one_line_that_says_how_to_get_it():
    with pytest.raises(
        InvalidInputError, match=r"package no_such_package, .*pip install 'twofold\[evaluate\]'"
    ):
        require_extra("evaluate", "json", "no_such_package")


def test_a_package_that_is_there_is_imported_and_one_that_is_not_is_named():
    assert import_extra("export", "json").loads("[]") == []
    with pytest.raises(InvalidInputError, match=r"no_such_package, .*'twofold\[export\]'"):
        import_extra("export", "no_such_package")
