"""The frozen scenarios of `koboshi benchmark faults`, one suite a task, the same for every controller and seed.

A suite is drawn by `make_suite`, a function of the robot, the commands and VERSION alone, and its hash is settled in
FROZEN: whatever would change a scenario is refused until the version is raised. Every episode holds the heading that
the robot begins with, is handed over to the controller after HANDOVER_S of the healthy policy's walking, and breaks
up to a second later. `everywhere` of the episodes, which come first, are walked in every world, the rest in the
nominal one alone:

| episodes                                                                  | H1  | everywhere |
|---------------------------------------------------------------------------|-----|------------|
| nothing breaks: walking; standing still                                    | 48; 16 | 12; 4   |
| one joint: each joint × kind × severity of SEVERITIES                      | 476 | 119 (one severity each, in turn) |
| one joint whose torque comes and goes, half a second on and one off        | 17  | 0          |
| every pair of joints, once dead and once with kinds and severities dealt   | 272 | 34         |
| three joints; four joints: sets dealt so that joints are in equally many   | 136; 68 | 0      |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from random import Random
from typing import Any

from koboshi.bench.worlds import NOMINAL
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, CommandRanges, Fault, Scenario, Scenarios, can_have
from koboshi.faults.held_out import shuffled
from koboshi.robots import Robot

VERSION = 3
SEED = 60_001
HANDOVER_S = 2.5
"""For so long the healthy policy walks, s."""
ONSET_S = (2.52, 3.5)
"""Within these every fault begins, s after the episode's beginning."""
SECONDS = 20.0
"""An episode counts for so long after its first onset, s."""
SEVERITIES = (0.25, 0.5, 0.75, 1.0)
WALKING, STANDING = (12, 48), (4, 16)
"""Episodes without a fault: everywhere, and in the nominal world."""
TRIPLES, QUADRUPLES, PAIRS_EVERYWHERE = 136, 68, 34
GONE_S, PERIOD_S = 0.5, 1.5
"""A fault that comes and goes: how long it lasts, and from one onset to the next, s."""
BATCH = 512
"""Episodes side by side at most; noise is drawn for a whole batch, so it is part of the suite."""

FROZEN = {
    "h1-walk": "f7b754dfe4b3",
    "go2-flat": "70a48a7eda6e",
    "g1-walk": "6109ef67a49c",
}
"""Task -> the hash that its suite of VERSION has."""


@dataclass(frozen=True)
class Suite:
    """Scenarios in a fixed order, the first `everywhere` of which are walked in every world."""

    name: str
    scenarios: Scenarios
    everywhere: int
    seconds: float = SECONDS

    @cached_property
    def hash(self) -> str:
        """sha256 of all that decides what is walked, its first 12 digits."""
        content = [self.name, self.scenarios.hash, self._sizes(NOMINAL), self.everywhere, self.seconds, HANDOVER_S]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    def count(self, world: str) -> int:
        """Episodes walked in a world."""
        return len(self.scenarios.episodes) if world == NOMINAL else self.everywhere

    def batches(self, world: str) -> Iterator[Scenarios]:
        """What is walked side by side, in order; what is walked everywhere comes in the same batches in every world.

        Episodes in which nothing breaks keep to themselves: where a robot falls and begins again it draws numbers,
        and from then on the noise of its whole batch is another one.
        """
        first = 0
        for i, size in enumerate(self._sizes(world)):
            episodes = self.scenarios.episodes[first : first + size]
            yield replace(self.scenarios, seed=self.scenarios.seed + i, episodes=episodes)
            first += size

    def _sizes(self, world: str) -> list[int]:
        sizes: list[int] = []
        before: tuple[bool, bool] | None = None
        for i, episode in enumerate(self.scenarios.episodes[: self.count(world)]):
            kind = (i < self.everywhere, bool(episode.faults))
            if kind != before or sizes[-1] == BATCH:
                sizes.append(0)
            sizes[-1] += 1
            before = kind
        return sizes

    def smaller(self, episodes: int | None, seconds: float | None) -> Suite:
        """At most so many episodes, spread over the list, each counting for so long: to try something out."""
        every = self.scenarios.episodes
        wanted = len(every) if episodes is None else max(1, min(episodes, len(every)))
        rows = [i * len(every) // wanted for i in range(wanted)]
        kept = replace(self.scenarios, episodes=tuple(every[i] for i in rows))
        first = max(1, sum(i < self.everywhere for i in rows))
        return replace(self, scenarios=kept, everywhere=first, seconds=seconds or self.seconds)


def make_suite(task: str, robot: Robot, commands: CommandRanges) -> Suite:
    """The suite of a task; KoboshiError where it is not the one that was frozen.

    A task from outside has one too, drawn in the same way, that nobody has frozen.
    """
    found = Suite(f"{task}-v{VERSION}", *_draw(robot, commands))
    wanted = FROZEN.get(task, found.hash)
    if found.hash != wanted:
        raise KoboshiError(
            f"the scenarios of {found.name} have hash {found.hash}, not {wanted}, with which they were frozen: "
            "the task's robot or commands have changed, and figures would not compare; they need a new version"
        )
    return found


def joints_of(scenario: Scenario) -> tuple[str, ...]:
    """The joints that break, each once."""
    return tuple(dict.fromkeys(fault.joint for fault in scenario.faults))


def is_dead(scenario: Scenario) -> bool:
    """Whether every joint that breaks loses all torque, for good."""
    return bool(scenario.faults) and all(
        (f.kind, f.severity, f.duration_s) == ("torque_loss", 1.0, None) for f in scenario.faults
    )


def comes_and_goes(scenario: Scenario) -> bool:
    return any(fault.period_s is not None for fault in scenario.faults)


class _Deck:
    """Deals values in a random order, all equally often."""

    def __init__(self, values: Sequence[Any], random: Random) -> None:
        self._values, self._random = list(values), random
        self._left: list[Any] = []

    def deal(self) -> Any:
        if not self._left:
            self._left = shuffled(self._values, self._random)
        return self._left.pop()

    def deal_set(self, size: int) -> tuple[Any, ...]:
        """Different values; those that came twice go back under the deck."""
        found: list[Any] = []
        again: list[Any] = []
        while len(found) < size:
            card = self.deal()
            (again if card in found else found).append(card)
        self._left = again + self._left
        return tuple(found)


class _Draw:
    """Draws single episodes."""

    def __init__(self, robot: Robot, commands: CommandRanges) -> None:
        self.robot, self.commands, self.random = robot, commands, Random(SEED + VERSION)
        self.names = robot.fault_candidates
        self._kinds, self._severities = _Deck(KINDS, self.random), _Deck(SEVERITIES, self.random)

    def episode(self, *faults: tuple[str, str, float], moves: bool = True, **coming: float) -> Scenario:
        """`faults`: (joint, kind, severity), each from a moment of its own on."""
        u = [self.random.random() for _ in range(3)]
        command = self.commands.draw(u) if moves else (0.0, 0.0, 0.0)
        planned = tuple(Fault(j, kind, s, self._onset(), **coming) for j, kind, s in faults)
        start = min((fault.onset_s for fault in planned), default=ONSET_S[0])
        return Scenario(planned, (command[0], command[1], 0.0), start, heading=0.0)

    def _onset(self) -> float:
        """On a grid of 0.02 s."""
        low, high = (round(s * 50) for s in ONSET_S)
        return (low + int(self.random.random() * (high - low + 1))) / 50

    def any_fault(self, joint: str) -> tuple[str, str, float]:
        """A kind and a severity as the decks deal them, passing over kinds that cannot act on the joint."""
        kind = self._kinds.deal()
        while not can_have(self.robot, joint, kind):
            kind = self._kinds.deal()
        return joint, kind, self._severities.deal()

    def set_of(self, joints: Sequence[str], dead: bool) -> Scenario:
        return self.episode(*((joint, "torque_loss", 1.0) if dead else self.any_fault(joint) for joint in joints))


def _draw(robot: Robot, commands: CommandRanges) -> tuple[Scenarios, int]:
    draw = _Draw(robot, commands)
    first, rest = _nothing_breaks(draw)
    for part in (_one_joint, _pairs):
        here, there = part(draw)
        first, rest = first + here, rest + there
    rest += [draw.episode((name, "torque_loss", 1.0), duration_s=GONE_S, period_s=PERIOD_S) for name in draw.names]
    for size, count in ((3, TRIPLES), (4, QUADRUPLES)):
        deck = _Deck(draw.names, draw.random)
        rest += [draw.set_of(deck.deal_set(size), dead=i % 2 == 0) for i in range(count)]
    return Scenarios(robot.name, SEED, tuple(first + rest)), len(first)


def _nothing_breaks(draw: _Draw) -> tuple[list[Scenario], list[Scenario]]:
    walks = [draw.episode() for _ in range(WALKING[1])]
    stands = [draw.episode(moves=False) for _ in range(STANDING[1])]
    first = walks[: WALKING[0]] + stands[: STANDING[0]]
    return first, walks[WALKING[0] :] + stands[STANDING[0] :]


def _one_joint(draw: _Draw) -> tuple[list[Scenario], list[Scenario]]:
    """Every joint, kind and severity; everywhere one severity of each, so that each joint and kind has all in turn."""
    first: list[Scenario] = []
    rest: list[Scenario] = []
    for j, joint in enumerate(draw.names):
        for k, kind in enumerate(k for k in KINDS if can_have(draw.robot, joint, k)):
            for s, severity in enumerate(SEVERITIES):
                (first if s == (j + k) % len(SEVERITIES) else rest).append(draw.episode((joint, kind, severity)))
    return first, rest


def _pairs(draw: _Draw) -> tuple[list[Scenario], list[Scenario]]:
    """Every pair, dead and mixed; everywhere some mixed ones, dealt so that joints are in equally many."""
    deck, chosen = _Deck(draw.names, draw.random), set[frozenset[str]]()
    every = list(combinations(draw.names, 2))
    while len(chosen) < min(PAIRS_EVERYWHERE, len(every)):
        chosen.add(frozenset(deck.deal_set(2)))
    mixed = [draw.set_of(pair, dead=False) for pair in every]
    dead = [draw.set_of(pair, dead=True) for pair in every]
    first = [each for each in mixed if frozenset(joints_of(each)) in chosen]
    return first, [each for each in mixed if each not in first] + dead


def described(suite: Suite) -> dict[str, Any]:
    """What a part says of its suite."""
    return {"name": suite.name, "hash": suite.hash, "seconds": suite.seconds, "episodes": len(suite.scenarios.episodes)}
