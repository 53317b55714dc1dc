"""Pairs of joints that a training does not meet, so that a benchmark can ask what it makes of new ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from random import Random
from typing import Any

from koboshi.robots import Robot

SEED, SHARE = 60_001, 0.25
"""Of the pairs' order; and the share of them, with their mirror images, that is held out."""


def held_out_pairs(robot: Robot) -> frozenset[frozenset[str]]:
    """Always the same ones of a robot's; with a pair its mirror image is out too."""
    orbits: dict[frozenset[frozenset[str]], None] = {}
    for pair in combinations(robot.fault_candidates, 2):
        orbits[frozenset((frozenset(pair), frozenset(_partner(robot, name) for name in pair)))] = None
    order = shuffled(list(orbits), Random(SEED))
    return frozenset(pair for orbit in order[: round(SHARE * len(order))] for pair in orbit)


def _partner(robot: Robot, joint: str) -> str:
    return robot.joint_names[robot.mirror_ids[robot.joint_id(joint)]] if robot.mirrored else joint


def shuffled(values: Sequence[Any], random: Random) -> list[Any]:
    """By keys of `random.random`, the one generator whose numbers Python promises to keep."""
    return [value for _, value in sorted(((random.random(), i), value) for i, value in enumerate(values))]
