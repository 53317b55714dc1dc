"""Frozen suites: they are what was frozen, balanced, and walked in the same batches everywhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from koboshi import robots
from koboshi.bench import suite as suites
from koboshi.bench.suite import (
    FROZEN,
    HANDOVER_S,
    SEVERITIES,
    Suite,
    comes_and_goes,
    is_dead,
    joints_of,
)
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, CommandRanges
from koboshi.tasks import make_task


def suite_of(name: str) -> Suite:
    task = make_task(name)
    return suites.make_suite(name, robots.find(task.env.robot), task.evaluate.commands)


@pytest.fixture(scope="module")
def h1() -> Suite:
    return suite_of("h1-walk")


@pytest.mark.parametrize("name", FROZEN)
def test_a_suite_is_the_one_that_was_frozen(name: str) -> None:
    suite = suite_of(name)
    assert suite.hash == FROZEN[name] and suite.name == f"{name}-v3"
    suite.scenarios.validate()


def test_other_commands_are_another_suite() -> None:
    robot = robots.find("unitree_h1")
    with pytest.raises(KoboshiError, match="h1-walk-v3 have hash .*, not .* they need a new version"):
        suites.make_suite("h1-walk", robot, CommandRanges(lin_vel_x=(0.2, 0.9)))
    assert suites.make_suite("mine", robot, CommandRanges()).name == "mine-v3", "nobody has frozen it"


def test_every_cell_is_there_as_often_as_the_table_says(h1: Suite) -> None:
    every = h1.scenarios.episodes
    here = every[: h1.everywhere]
    one = [e for e in every if len(joints_of(e)) == 1 and not comes_and_goes(e)]
    cells = Counter((f.joint, f.kind, f.severity) for e in one for f in e.faults)
    assert len(cells) == 17 * len(KINDS) * len(SEVERITIES) and set(cells.values()) == {1}
    cells = Counter((f.joint, f.kind) for e in here if len(e.faults) == 1 for f in e.faults)
    assert len(cells) == 17 * len(KINDS) and set(cells.values()) == {1}
    assert Counter(f.severity for e in here if len(e.faults) == 1 for f in e.faults)[0.25] in (28, 29, 30, 31)
    pairs = Counter((frozenset(joints_of(e)), is_dead(e)) for e in every if len(joints_of(e)) == 2)
    assert len(pairs) == 2 * 136
    for size, count in ((3, 136), (4, 68)):
        uses = Counter(f.joint for e in every if len(joints_of(e)) == size for f in e.faults)
        assert sum(uses.values()) == size * count and max(uses.values()) - min(uses.values()) <= 1
    assert sum(not e.faults and any(e.command) for e in every) == 48
    assert sum(not e.faults and not any(e.command) for e in every) == 16
    assert len(here) == 16 + 119 + 34


def test_every_episode_breaks_after_the_handover_and_holds_its_heading(h1: Suite) -> None:
    for episode in h1.scenarios.episodes:
        assert episode.heading == 0.0 and episode.start_s > HANDOVER_S
        assert all(HANDOVER_S < fault.onset_s <= HANDOVER_S + 1 for fault in episode.faults)
        assert episode.start_s == min((fault.onset_s for fault in episode.faults), default=episode.start_s)


def test_batches_are_the_same_everywhere_and_the_well_keep_to_themselves(h1: Suite) -> None:
    here, there = list(h1.batches("nominal")), list(h1.batches("late"))
    assert here[: len(there)] == there
    assert sum(len(batch.episodes) for batch in there) == h1.everywhere == h1.count("late")
    assert tuple(e for batch in here for e in batch.episodes) == h1.scenarios.episodes
    assert all(len({bool(e.faults) for e in batch.episodes}) == 1 for batch in here)
    assert len({batch.seed for batch in here}) == len(here)


def test_a_smaller_suite_is_spread_over_the_whole_and_has_a_hash_of_its_own(h1: Suite) -> None:
    small = h1.smaller(60, 2.0)
    counts = Counter(len(joints_of(e)) for e in small.scenarios.episodes)
    assert len(small.scenarios.episodes) == 60 and set(counts) == {0, 1, 2, 3, 4}
    assert small.everywhere == 10 and small.seconds == 2.0
    assert len({h1.hash, small.hash, h1.smaller(60, None).hash, replace(h1, everywhere=1).hash}) == 4
    assert h1.smaller(None, None) == h1
