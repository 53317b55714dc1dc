"""Puts this folder on the path, for its tests share `walker`; the toy robot's recordings."""

import sys
from pathlib import Path

import pytest

from koboshi.data import Sequences

sys.path.insert(0, str(Path(__file__).parent))
from walker import make_card, simulate  # noqa: E402


@pytest.fixture(scope="session")
def walk() -> Sequences:
    """400 steps of 96 robots, all of training episodes."""
    return simulate(400, 96, seed=1)


@pytest.fixture(scope="session")
def other_walk() -> Sequences:
    """Robots that were not trained on, all of test episodes."""
    other = simulate(400, 96, seed=2)
    other.part.fill_(2)
    return other


@pytest.fixture
def card_of():
    return make_card
