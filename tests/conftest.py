"""What all tests share."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

# The examples are the same wherever and whenever; and a machine under load is no mistake.
settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write what the commands print now as what is expected")


@pytest.fixture(scope="session")
def torch_python() -> str:
    """A Python that has PyTorch, which is too large to be installed for tests; without one, the test is skipped."""
    found = os.environ.get("BENCH_PYTHON") or (sys.executable if find_spec("torch") else "")
    if not found:
        pytest.skip("PyTorch is not there: pip install 'cfgnet[bench]', or set BENCH_PYTHON")
    return found
