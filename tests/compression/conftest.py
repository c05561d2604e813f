"""Measurement left out of all tests of compression."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _unmeasured():
    """Leave out the measurement at the end of compression, which starts a process each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEIT_COMPRESSION_MEASURE", "false")
        yield
