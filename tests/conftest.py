"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A test times nothing: a machine under load is no mistake.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write what the commands print now as what is expected")
