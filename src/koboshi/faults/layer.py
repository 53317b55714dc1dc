"""Faults at work: which are planned and in force, what physics and encoders make of them, and the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.errors import KoboshiError, unknown
from koboshi.faults.cfg import NEVER, Fault, FaultSchedule, FaultsOnDemand
from koboshi.faults.held_out import held_out_pairs
from koboshi.faults.kinds import CAPTURING, ENCODER_OFFSET, FAULT_KINDS, KINDS, FieldEffect, check_fault
from koboshi.faults.scenarios import Scenarios
from koboshi.robots import JointMap, Robot
from koboshi.sim import Backend, ModelFields, anyone

_PLAN = ("joint", "which", "level", "start", "stop", "period")
Cfg = FaultSchedule | Scenarios | FaultsOnDemand | None


class FaultLayer:
    """The faults of N robots with J joints, at most S in an episode.

    severity (N, J) in force now, 0 healthy to 1 dead; kind (N, J) index into KINDS of the gravest one, −1 none;
    levels (N, K, J) the severity of each of the K KINDS.
    The plan, (N, S) each: joint and which (index into KINDS) int64, level, start and stop (control steps of the
    episode, NEVER where there is none), and period, control steps from one start to the next (NEVER: it comes once).
    Without a schedule there is nothing to do, and no field is expanded.
    """

    def __init__(
        self,
        cfg: Cfg,
        robot: Robot,
        joints: JointMap,
        backend: Backend,
        fields: ModelFields,
        step_dt: float,
    ) -> None:
        self._cfg, self._robot, self._joints, self._fields = cfg, robot, joints, fields
        self._step_dt, self._device, self._num_envs = step_dt, backend.device, backend.num_envs
        self._qpos = backend.read("qpos")
        n, j, s = backend.num_envs, len(robot.joint_names), _slots(cfg)
        self.severity = torch.zeros(n, j, device=self._device)
        self.kind = torch.full((n, j), -1, device=self._device)
        self._kinds = _kinds(cfg) if s else ()
        # Model field -> what acts on it, in KINDS' order.
        self._effects: dict[str, list[tuple[str, FieldEffect]]] = {}
        for kind in self._kinds:
            for effect in FAULT_KINDS[kind].effects:
                self._effects.setdefault(effect.field, []).append((kind, effect))
        self.levels = torch.zeros(n, len(KINDS), j, device=self._device)
        self._level = {kind: self.levels[:, KINDS.index(kind)] for kind in self._kinds}
        self._sign = torch.as_tensor(robot.fault_signs, dtype=torch.float32, device=self._device)
        self._held = {kind: torch.zeros(n, j, device=self._device) for kind in self._kinds if kind in CAPTURING}
        self.joint, self.which = (torch.zeros(n, s, dtype=torch.int64, device=self._device) for _ in range(2))
        self.level = torch.zeros(n, s, device=self._device)
        self.start, self.stop, self.period = (torch.full((n, s), NEVER, device=self._device) for _ in range(3))
        self._active = torch.zeros(n, s, dtype=torch.bool, device=self._device)
        self.scale = 1.0
        """Share of the range of severities, from its lower end on, that a schedule uses; a curriculum widens it."""
        self.odds: Tensor | None = None
        """(N, K, J), up to a factor: how likely each fault is drawn first; None: as the schedule says."""
        self._prepare_plan()
        for name in self._effects:
            fields.expand(name)
            fields.overlay(name, lambda value, name=name: self._faulty(name, value))  # type: ignore[misc]

    def _prepare_plan(self) -> None:
        """What does not change from episode to episode; refuses what cannot happen."""
        cfg, robot, device = self._cfg, self._robot, self._device
        if isinstance(cfg, Scenarios):
            if cfg.robot != robot.name:
                raise KoboshiError(f"the scenarios are for robot '{cfg.robot}', not '{robot.name}'")
            if len(cfg.episodes) != self._num_envs:
                raise KoboshiError(f"{len(cfg.episodes)} scenarios need as many environments, not {self._num_envs}")
            self._scripted = {name: x.to(device) for name, x in _script(cfg, robot, self._step_dt).items()}
        elif isinstance(cfg, FaultSchedule) and self._kinds:
            self._choices = torch.tensor([KINDS.index(kind) for kind in cfg.faults.kinds], device=device)
            if cfg.faults.hold_out:
                self._apart = _apart(robot).to(device)
            if cfg.groups is None or cfg.faults.count[1] > 1:
                names = cfg.faults.candidates(robot)
                self._candidates = torch.tensor([robot.joint_id(name) for name in names], device=device)
            if cfg.groups is not None:
                for name in (joint for group in cfg.groups for joint in group):
                    for kind in cfg.faults.kinds:
                        check_fault(robot, name, kind)
                self._own = _by_index(cfg.groups, robot, self._num_envs).to(device)

    @property
    def drawn(self) -> Tensor:
        """(K, J) bool: the faults that a schedule may draw first."""
        drawn = torch.zeros(self.levels.shape[1:], dtype=torch.bool, device=self._device)
        if isinstance(self._cfg, FaultSchedule) and self._kinds:
            drawn[self._choices[:, None], self._candidates if self._cfg.groups is None else self._own.unique()] = True
        return drawn

    @property
    def active(self) -> Tensor:
        """(N,) bool: some joint is broken now."""
        return self.severity.amax(1) > 0

    @property
    def first_alone(self) -> Tensor:
        """(N,) bool: the first fault of the plan is in force now, and no other."""
        return self._active[:, 0] & (self._active.sum(1) == 1)

    def postpone(self, steps: Tensor) -> None:
        """Onsets come so many control steps (N,) later: an episode that begins at an age begins whole."""
        for time in (self.start, self.stop):
            time.copy_(torch.where(time < NEVER, time + steps[:, None], NEVER).clamp(max=NEVER))

    def restart(self, mask: Tensor, generator: torch.Generator) -> None:
        """New episodes of the environments in `mask`: everything is undone and the next faults are planned."""
        if not self._kinds:
            return
        self.set_plan(mask, **self._next_plan(generator))

    def _next_plan(self, generator: torch.Generator) -> dict[str, Tensor]:
        if isinstance(self._cfg, Scenarios):
            return self._scripted
        if isinstance(self._cfg, FaultsOnDemand):
            never = torch.full_like(self.start, NEVER)
            nothing = {"joint": self.joint, "which": self.which, "level": torch.zeros_like(self.level)}
            return nothing | dict.fromkeys(("start", "stop", "period"), never)
        return self._draw(generator)

    def set_plan(self, mask: Tensor, **plan: Tensor) -> None:
        """Plans the episodes of the environments in `mask` outright; all of the class's plan, each (N, S)."""
        rows = mask[:, None]
        for name in _PLAN:
            setattr(self, name, torch.where(rows, plan[name], getattr(self, name)))
        for table in (*self._level.values(), *self._held.values(), self.severity, self._active):
            table.masked_fill_(rows, 0)
        self.kind.masked_fill_(rows, -1)
        self._refresh_fields()

    def put(self, mask: Tensor, slot: int, fault: Fault | None, episode_step: Tensor) -> None:
        """Plans one of the S faults of the environments in `mask` anew, or none; the others go on as they are.

        Its onset counts from now, episode_step (N,): 0 s is the control step that starts next.
        KoboshiError where it cannot happen to the robot or its kind was not prepared.
        """
        row = {"start": NEVER, "stop": NEVER, "period": NEVER} if fault is None else self._row(fault, episode_step)
        # What was there ends now, so that what comes in its place begins, and holds the joint where it then is.
        self._active[:, slot] &= ~mask
        self._update(self._active, torch.zeros_like(self._active))
        for name, value in row.items():
            column = getattr(self, name)[:, slot]
            column.copy_(torch.where(mask, torch.as_tensor(value, device=self._device).to(column.dtype), column))

    def _row(self, fault: Fault, episode_step: Tensor) -> dict[str, Tensor | float]:
        """A fault's part of the plan, its onset counted from `episode_step`."""
        fault.check(self._robot)
        if fault.kind not in self._kinds:
            raise unknown("fault kind prepared here", fault.kind, self._kinds, "prepared kinds")
        start, stop, period = fault.planned(self._step_dt)
        return {
            "joint": self._robot.joint_id(fault.joint),
            "which": KINDS.index(fault.kind),
            "level": fault.severity,
            "start": episode_step + start,
            "stop": (episode_step + stop).clamp(max=NEVER),
            "period": period,
        }

    def _draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A plan for every environment, by the schedule."""
        cfg = self._cfg
        assert isinstance(cfg, FaultSchedule)
        n, s, faults = self._num_envs, self.joint.shape[1], cfg.faults
        u = torch.rand(n, 5 * s + 2, generator=generator, device=self._device)
        severity, onset, kind, lasts, pause = u[:, : 5 * s].unflatten(1, (5, s)).unbind(1)
        first, last = (round(t / self._step_dt) for t in cfg.onset_s)
        start = (first + (last - first + 1) * onset).long().clamp(max=last)
        which = self._choices[(kind * len(self._choices)).long().clamp(max=len(self._choices) - 1)]
        own = self._own if cfg.groups is not None else None
        if self.odds is not None:
            # The first fault alone: which joints break beside it says the schedule.
            cell = torch.multinomial(self.odds.flatten(1), 1, generator=generator)
            joints = self.odds.shape[2]
            own, which = cell.squeeze(1) % joints, torch.cat((cell // joints, which[:, 1:]), 1)
        level = faults.levels(severity)
        if self.scale < 1.0:
            level = faults.severity[0] + self.scale * (level - faults.severity[0])
        if faults.alike:
            alike = torch.rand(n, 1, generator=generator, device=self._device) < faults.alike
            which, level = (torch.where(alike, x[:, :1], x) for x in (which, level))
        if faults.dead:
            dead = torch.rand(n, 1, generator=generator, device=self._device) < faults.dead
            which = torch.where(dead, KINDS.index("torque_loss"), which)
            level = torch.where(dead, 1.0, level)
        joint, number = self._who(u[:, -2], own, generator)
        breaks = (torch.arange(s, device=self._device) < number[:, None]) & (u[:, -1:] < cfg.probability)
        if own is not None:
            # The own joint, which stands first, breaks before others: its member is to take charge.
            start = torch.where(breaks, start, NEVER).sort(1).values
        if faults.hold_out:
            breaks = self._kept_apart(joint, breaks)
        stop, period = (torch.full_like(start, NEVER) for _ in range(2))
        if faults.duration_s is not None:
            length = self._steps(faults.duration_s, lasts)
            stop = start + length
            if faults.pause_s is not None:
                period = length + self._steps(faults.pause_s, pause)
        return {
            "joint": joint,
            "which": which,
            "level": level,
            "start": torch.where(breaks, start, NEVER),
            "stop": torch.where(breaks, stop, NEVER),
            "period": torch.where(breaks, period, NEVER),
        }

    def _steps(self, seconds: tuple[float, float], u: Tensor) -> Tensor:
        """Control steps, at least one, between two times, for numbers in 0..1."""
        least, most = (max(1, round(t / self._step_dt)) for t in seconds)
        return (least + (most - least + 1) * u).long().clamp(max=most)

    def _kept_apart(self, joint: Tensor, breaks: Tensor) -> Tensor:
        """(N, S) of the faults planned those that form no pair which is held out with one before them."""
        kept = breaks.clone()
        for later in range(1, joint.shape[1]):
            with_earlier = self._apart[joint[:, later, None], joint[:, :later]] & kept[:, :later]
            kept[:, later] &= ~with_earlier.any(1)
        return kept

    def _who(self, u: Tensor, own: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(N, S) joints in a random order, where one is the `own` (N,) that first, and (N,) how many of them break."""
        cfg = self._cfg
        assert isinstance(cfg, FaultSchedule)
        low, high = cfg.faults.count
        if cfg.count_by_index:
            number = low + torch.arange(len(u), device=self._device) % (high - low + 1)
        else:
            number = (low + (high - low + 1) * u).long().clamp(max=high)
        if own is not None and high == 1:
            return own[:, None], number
        order = torch.rand(len(u), len(self._candidates), generator=generator, device=self._device)
        if own is None:
            return self._candidates[order.topk(high, dim=1).indices], number
        order = order.masked_fill(self._candidates == own[:, None], -1.0)
        others = self._candidates[order.topk(high - 1, dim=1).indices]
        return torch.cat((own[:, None], others), dim=1), number

    def advance(self, episode_step: Tensor) -> None:
        """Begins and ends what is due at the control step that starts now. episode_step (N,): steps done so far."""
        if not self._kinds:
            return
        now = episode_step[:, None]
        active = (self.start <= now) & ((now - self.start) % self.period < self.stop - self.start)
        # Not by equal steps: an episode may begin at an age that an onset has passed.
        if anyone(active != self._active):
            self._update(active, active & ~self._active)

    def _update(self, active: Tensor, begins: Tensor) -> None:
        """active, begins (N, S)."""
        self._active.copy_(active)
        here = self.joint[:, :, None] == torch.arange(self.severity.shape[1], device=self._device)
        level = (self.level * active)[:, :, None] * here
        pos = self._qpos[:, self._joints.qpos].to(level.dtype)
        for kind in self._kinds:
            mine = (self.which == KINDS.index(kind))[:, :, None]
            self._level[kind].copy_((level * mine).amax(1))
            if kind in self._held:
                began = (begins[:, :, None] & here & mine).any(1)
                self._held[kind].copy_(torch.where(began, pos, self._held[kind]))
        worst, slot = level.max(1)
        self.severity.copy_(worst)
        self.kind.copy_(torch.where(worst > 0, self.which.gather(1, slot), -1))
        self._refresh_fields()

    def _refresh_fields(self) -> None:
        for name in self._effects:
            self._fields.refresh(name)

    def _faulty(self, name: str, value: Tensor) -> Tensor:
        """(N, …) a field as the faults in force leave it."""
        value = value.clone()
        for kind, effect in self._effects[name]:
            columns = getattr(self._joints, effect.columns)
            own = value[:, columns]
            held = self._held.get(kind, self.severity)
            level = self._level[kind] * self._sign if FAULT_KINDS[kind].signed else self._level[kind]
            value[:, columns] = effect.apply(own, level.to(own.dtype), held.to(own.dtype))
        return value

    def sense(self, joint_pos: Tensor) -> Tensor:
        """(N, J) what the encoders show for these positions, rad."""
        if "encoder_freeze" in self._kinds:
            joint_pos = torch.lerp(joint_pos, self._held["encoder_freeze"], self._level["encoder_freeze"])
        if "encoder_offset" in self._kinds:
            joint_pos = joint_pos + ENCODER_OFFSET * self._sign * self._level["encoder_offset"]
        return joint_pos

    def sense_rate(self, joint_vel: Tensor) -> Tensor:
        """(N, J) what the encoders show for these velocities, rad/s."""
        return self._weakened(joint_vel, "encoder_freeze")

    def sense_torque(self, joint_torque: Tensor) -> Tensor:
        """(N, J) what the torque sensors show for these torques, N·m."""
        return self._weakened(joint_torque, "torque_sensor_loss")

    def _weakened(self, value: Tensor, kind: str) -> Tensor:
        return value * (1 - self._level[kind]) if kind in self._kinds else value

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._tables().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Model fields follow when `ModelFields` is restored after this."""
        for name, value in self._tables().items():
            value.copy_(state[name])

    def _tables(self) -> dict[str, Tensor]:
        own = {name: getattr(self, name) for name in (*_PLAN, "severity", "kind")} | {"active": self._active}
        own |= {f"level.{kind}": table for kind, table in self._level.items()}
        return own | {f"held.{kind}": table for kind, table in self._held.items()}


def _apart(robot: Robot) -> Tensor:
    """(J, J) bool: pairs of joints that are held out."""
    apart = torch.zeros(len(robot.joint_names), len(robot.joint_names), dtype=torch.bool)
    for pair in held_out_pairs(robot):
        one, other = (robot.joint_id(name) for name in pair)
        apart[one, other] = apart[other, one] = True
    return apart


def _kinds(cfg: Cfg) -> tuple[str, ...]:
    """The kinds that may occur, in KINDS' order."""
    if cfg is None:
        return ()
    found = cfg.faults.kinds if isinstance(cfg, FaultSchedule) else cfg.kinds
    return tuple(kind for kind in KINDS if kind in found)


def _slots(cfg: Cfg) -> int:
    """S, how many faults an episode may have."""
    if isinstance(cfg, Scenarios):
        return max((len(episode.faults) for episode in cfg.episodes), default=0)
    if isinstance(cfg, FaultsOnDemand):
        return cfg.slots
    if cfg is None or cfg.probability == 0:
        return 0
    return cfg.faults.count[1]


def _script(scenarios: Scenarios, robot: Robot, step_dt: float) -> dict[str, Tensor]:
    """The plan of frozen scenarios, each (N, S)."""
    shape = (len(scenarios.episodes), _slots(scenarios))
    plan = {name: torch.zeros(shape, dtype=torch.int64) for name in ("joint", "which")}
    plan |= {"level": torch.zeros(shape)} | {name: torch.full(shape, NEVER) for name in ("start", "stop", "period")}
    for i, episode in enumerate(scenarios.episodes):
        for s, fault in enumerate(episode.faults):
            who = (robot.joint_id(fault.joint), KINDS.index(fault.kind), fault.severity)
            row = (*who, *fault.planned(step_dt))
            for name, value in zip(_PLAN, row, strict=True):
                plan[name][i, s] = value
    return plan


def _by_index(groups: tuple[tuple[str, ...], ...], robot: Robot, num_envs: int) -> Tensor:
    """(N,) the joint that each environment's index stands for; see `FaultSchedule`."""
    block, rest = divmod(num_envs, len(groups))
    if rest:
        raise KoboshiError(f"{num_envs} environments cannot be divided among {len(groups)} groups")
    own = [groups[i // block] for i in range(num_envs)]
    return torch.tensor([robot.joint_id(group[i % len(group)]) for i, group in enumerate(own)])
