"""For all tests."""

from __future__ import annotations

import pytest

from tests.skips import Skips, is_complete


def pytest_configure(config: pytest.Config) -> None:
    # Processes of pytest-xdist tell this one what they skip.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(is_complete()))
