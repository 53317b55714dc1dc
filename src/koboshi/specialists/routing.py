"""Routers: who acts now, and what they believe."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from koboshi.detect.alarms import AlarmCfg, AlarmState, alarm_step, initial_alarms
from koboshi.detect.base import Detector, Reading
from koboshi.errors import unknown
from koboshi.faults import KINDS, check_kind
from koboshi.robots import Robot
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.charge import NOBODY, Charge, SeatTable
from koboshi.vec_env import Obs, State, anyone

BELIEF = "belief"
"""The observation group that says which faults there are; see `observations.fault_levels`. An environment tells the
truth; members of a bank are told what the router believes instead."""
LEAST = 0.05
"""Severity that an alarmed joint has at the least."""
LIKELY = 0.2
"""Kinds of at least this probability are told, or the likeliest alone: to leave a dead joint to the healthy policy,
because a lost torque sensor is a little likelier, costs a fall; a specialist for a joint that is well costs little."""
HEALTHY = -1
"""The member that stands for the healthy policy."""
Device = torch.device | str


class Belief(NamedTuple):
    """What a router makes of what it sees."""

    probability: Tensor
    """(N, J) of a fault in each joint."""
    alarm: Tensor
    """(N, J) bool, the joints held for broken."""
    levels: Tensor
    """(N, K·J) the severity of each kind of fault of each joint; what members see as group `BELIEF`."""


class Route(NamedTuple):
    """member (N,) int64, HEALTHY where the healthy policy acts; mirrored (N,) bool: it sees the robot in the mirror."""

    member: Tensor
    mirrored: Tensor
    belief: Belief


class Router(Protocol):
    """Pure given its carried state: streamed or batched, the same observations give the same routes."""

    @property
    def tells_kinds(self) -> bool:
        """Whether its belief's levels tell one kind of fault from another."""
        ...

    def initial_state(self, num_envs: int, device: Device = "cpu") -> State:
        """The state before the first observation; `device` is where observations lie."""
        ...

    def route(self, obs: Obs, reset: Tensor, state: State) -> tuple[Route, State]:
        """`reset` (N,) bool: rows whose observation is the first of an episode."""
        ...


class HealthyRouter:
    """Never switches, and asks for no observation: the healthy policy alone."""

    tells_kinds = False

    def __init__(self, num_joints: int) -> None:
        self._num_joints = num_joints

    def initial_state(self, num_envs: int, device: Device = "cpu") -> State:
        return ()

    def route(self, obs: Obs, reset: Tensor, state: State) -> tuple[Route, State]:
        alarm = torch.zeros(len(reset), self._num_joints, dtype=torch.bool, device=reset.device)
        levels = torch.zeros(len(reset), len(KINDS) * self._num_joints, device=reset.device)
        member = torch.full_like(reset, HEALTHY, dtype=torch.int64)
        return Route(member, torch.zeros_like(reset), Belief(alarm.float(), alarm, levels)), state


class OracleState(NamedTuple):
    """since (N, J) int64: steps for which a fault has shown; draw (N,) int64: each robot's own draw of delays."""

    since: Tensor
    draw: Tensor
    charge: Charge


class OracleRouter:
    """Knows the truth (observation group `BELIEF`, as the environment gives it), each joint's after a delay.

    Without delay it switches at the first observation that shows the fault: one control period after onset.
    Its probability is the severity; a fault that ends is forgotten at once.
    """

    tells_kinds = True

    def __init__(
        self,
        assignment: Assignment,
        robot: Robot,
        step_dt: float,
        delay_s: float | tuple[float, float] = 0.0,
        seed: int = 0,
    ) -> None:
        """A pair of delays: each episode's is drawn between them (to train specialists that can be late)."""
        low, high = (delay_s, delay_s) if isinstance(delay_s, int | float) else delay_s
        self._low, self._span = round(low / step_dt), round(high / step_dt) - round(low / step_dt) + 1
        self._table, self._seed, self._joints = SeatTable(assignment, robot), seed, len(robot.joint_names)

    def initial_state(self, num_envs: int, device: Device = "cpu") -> OracleState:
        charge, joints = self._table.initial(num_envs, device), self._joints
        draw = torch.arange(num_envs, device=device) + 1 + 104729 * self._seed
        return OracleState(torch.zeros(num_envs, joints, dtype=torch.int64, device=device), draw, charge)

    def route(self, obs: Obs, reset: Tensor, state: OracleState) -> tuple[Route, OracleState]:
        if BELIEF not in obs:
            raise unknown("observation group", BELIEF, obs)
        levels = obs[BELIEF]
        severity = levels.unflatten(1, (len(KINDS), -1)).amax(1)
        since = torch.where(reset[:, None] | (severity == 0), 0, state.since + 1)
        # A linear congruential generator (Numerical Recipes) keeps the router a pure function of its state.
        draw = torch.where(reset, (state.draw * 1664525 + 1013904223) % 2**32, state.draw)
        alarm = since > (self._low + (draw >> 16) % self._span)[:, None]
        belief = Belief(severity * alarm, alarm, levels * alarm.repeat(1, len(KINDS)))
        fresh = reset if anyone(reset) else None
        charge = self._table.on(severity.device).take(belief.levels > 0, belief.levels, fresh, state.charge)
        return Route(charge.member, charge.mirrored, belief), OracleState(since, draw, charge)


class DetectorState(NamedTuple):
    """The detector's hidden state, its alarms, what it believes, who is in charge and for how long."""

    hidden: Tensor
    alarms: AlarmState
    levels: Tensor
    """(N, K·J) of `Belief`."""
    charge: Charge
    since: Tensor
    """(N,) int32: steps for which whoever is in charge has been; no more than the dwell and one are counted."""


class DetectorRouter:
    """Listens to the detector: threshold, persistence, hysteresis (see `AlarmCfg`), then `SeatTable.take`.

    Whoever took charge keeps it for `dwell_steps`, whatever is believed meanwhile; the first of an episode need not
    wait.
    """

    def __init__(
        self, detector: Detector, alarm: AlarmCfg, assignment: Assignment, robot: Robot, dwell_steps: int = 0
    ) -> None:
        """The detector must lie where the observations will."""
        self.detector, self.alarm, self._dwell_steps = detector, alarm, dwell_steps
        self._table, self._joints = SeatTable(assignment, robot), len(robot.joint_names)
        for kind in detector.spec.kinds:
            check_kind(kind)  # a detector may know one from outside, whose module is not here
        self._kinds = torch.tensor([KINDS.index(kind) for kind in detector.spec.kinds])
        self.tells_kinds = detector.tells

    def initial_state(self, num_envs: int, device: Device = "cpu") -> DetectorState:
        alarms, charge = initial_alarms(num_envs, self._joints, device), self._table.initial(num_envs, device)
        levels = torch.zeros(num_envs, len(KINDS) * self._joints, device=device)
        since = torch.full((num_envs,), self._dwell_steps + 1, dtype=torch.int32, device=device)
        return DetectorState(self.detector.initial(num_envs), alarms, levels, charge, since)

    @torch.inference_mode()
    def route(self, obs: Obs, reset: Tensor, state: DetectorState) -> tuple[Route, DetectorState]:
        fresh = reset if anyone(reset) else None
        reading, hidden = self.detector.step(obs["detector"], fresh, state.hidden)
        probability = reading.logit.sigmoid()
        alarm, alarms = alarm_step(self.alarm, probability, state.alarms, fresh)
        levels, charge, since = state.levels, state.charge, state.since
        # `alarm_step` gives the same tensor back where nothing changed: nearly always, and asking costs less than
        # answering. How grave a standing fault is changes from step to step where the detector tells.
        still = alarm is state.alarms.alarm and not (self.tells_kinds and anyone(alarm))
        if not still or self._waits(since):
            levels = self._levels(reading, alarm)
            strength = torch.cat([probability] * len(KINDS), 1)
            charge = self._table.on(alarm.device).take(levels > 0, strength, fresh, charge)
            if self._dwell_steps:
                charge, since = self._kept(charge, state, fresh)
        route = Route(charge.member, charge.mirrored, Belief(probability, alarm, levels))
        return route, DetectorState(hidden, alarms, levels, charge, since)

    def _waits(self, since: Tensor) -> bool:
        # Once more after the dwell: whoever had to wait for its end takes charge then.
        return bool(self._dwell_steps) and anyone(since <= self._dwell_steps)

    def _kept(self, charge: Charge, state: DetectorState, fresh: Tensor | None) -> tuple[Charge, Tensor]:
        """Who is in charge after the dwell: those who took it lately, unless an episode begins; and for how long."""
        before, since = state.charge.seat, state.since
        if fresh is not None:
            before, since = before.masked_fill(fresh, NOBODY), since.masked_fill(fresh, self._dwell_steps + 1)
        changes = charge.seat != before
        early = changes & (since < self._dwell_steps)
        # What they were in charge for stays too, so that the change is asked for again.
        pairs = zip(state.charge, charge, strict=True)
        kept = Charge(*(torch.where(early.view(-1, *[1] * (new.dim() - 1)), old, new) for old, new in pairs))
        since = (since + 1).clamp(max=self._dwell_steps + 1).masked_fill(changes & ~early, 1)
        return kept, since

    def _levels(self, reading: Reading, alarm: Tensor) -> Tensor:
        """(N, K·J) each alarmed joint's severity, shared out among kinds as they are likely (see `LIKELY`)."""
        if not anyone(alarm):  # nearly always, and asking costs less than answering
            return torch.zeros(len(alarm), len(KINDS) * self._joints, device=alarm.device)
        self._kinds = self._kinds.to(alarm.device)  # copied there once
        likely = reading.kind.softmax(1)
        told = likely >= likely.amax(1, keepdim=True).clamp(max=LIKELY)
        severity = alarm * reading.severity.clamp(min=LEAST)
        levels = severity.new_zeros(len(alarm), len(KINDS), self._joints)
        return levels.index_copy_(1, self._kinds, told * likely * severity[:, None]).flatten(1)


class SplitRouter:
    """Two routers side by side, each for its own rows of a batch: in training, to meet the mistakes of both."""

    def __init__(self, first: Router, second: Router, of_second: Tensor) -> None:
        """`of_second` (N,) bool: rows that the second one routes."""
        self._routers = first, second
        self._rows = (~of_second).nonzero().squeeze(1), of_second.nonzero().squeeze(1)
        self.tells_kinds = first.tells_kinds and second.tells_kinds

    def initial_state(self, num_envs: int, device: Device = "cpu") -> State:
        pairs = zip(self._routers, self._rows, strict=True)
        return tuple(router.initial_state(len(rows), device) for router, rows in pairs)

    def route(self, obs: Obs, reset: Tensor, state: State) -> tuple[Route, State]:
        parts = []
        for router, rows, before in zip(self._routers, self._rows, state, strict=True):
            parts.append(router.route({group: x[rows] for group, x in obs.items()}, reset[rows], before))
        (one, two), after = zip(*parts, strict=True)
        belief = Belief(*(self._joined(*pair) for pair in zip(one.belief, two.belief, strict=True)))
        return Route(self._joined(one.member, two.member), self._joined(one.mirrored, two.mirrored), belief), after

    def _joined(self, one: Tensor, two: Tensor) -> Tensor:
        whole = one.new_empty(len(one) + len(two), *one.shape[1:])
        return whole.index_copy_(0, self._rows[0], one).index_copy_(0, self._rows[1], two)
