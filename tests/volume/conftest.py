"""Fixtures of the volume tests."""

from __future__ import annotations

import pytest
import trio.testing


@pytest.fixture
def patient_clock() -> trio.testing.MockClock:
    """Jumps like ``autojump_clock``, but only when worker threads had a moment to finish too."""
    return trio.testing.MockClock(autojump_threshold=0.1)
