"""What the tests of the endpoint share: a replica's application on a fake encoder."""

from __future__ import annotations

import pytest

from support.replica_app import App


@pytest.fixture(scope="module")
def app() -> App:
    """With the default settings; tests that count or change something make their own."""
    return App()
