"""Faults that act on the physics, and the truth beside them."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.faults.schedule import KINDS, FaultSchedule
from koboshi.robots import Robot
from koboshi.sim import Backend

NEVER = 2**31 - 1
LOCK_SLACK = 0.01
"""A locked joint keeps this much play to either side, rad."""
BRAKE_DAMPING = 40.0
"""Damping that braking of severity 1 adds, N·m·s/rad (a knee's PD damping is 5)."""
SENSOR_BIAS = 0.3
"""Offset that a biased encoder of severity 1 shows, rad."""
_FIELDS = {
    "torque_loss": "actuator_forcerange",
    "locked": "jnt_range",
    "limited_range": "jnt_range",
    "braking": "dof_damping",
}
_KIND_ID = {kind: i for i, kind in enumerate(KINDS)}


class FaultState:
    """The faults of N robots with J joints.

    severity (N, J): in force now, 0 healthy to 1 dead. active (N,) bool. planned (N, J), onset (N, J) control
    step of the episode (NEVER: none), kind (N, J) index into KINDS. Everything of an environment is undone by
    `clear`. Model fields are expanded for the kinds given at construction only: each costs time in every step.
    """

    def __init__(self, backend: Backend, robot: Robot, kinds: tuple[str, ...], step_dt: float) -> None:
        self.robot, self.step_dt = robot, step_dt
        self._backend = backend
        self._qpos = backend.read("qpos")
        n, j, device = backend.num_envs, len(robot.joint_names), backend.device
        self._fields = {name: backend.expand(name) for name in {_FIELDS[k] for k in kinds if k in _FIELDS}}
        self._original = {name: tensor.clone() for name, tensor in self._fields.items()}
        self._kinds = frozenset(kinds)
        self._senses = any(k.startswith("sensor") for k in kinds)
        self.severity, self.planned = torch.zeros(n, j, device=device), torch.zeros(n, j, device=device)
        self.onset = torch.full((n, j), NEVER, dtype=torch.int64, device=device)
        self.kind = torch.zeros(n, j, dtype=torch.int64, device=device)
        self._frozen, self._bias = torch.zeros(n, j, device=device), torch.zeros(n, j, device=device)
        self._is_frozen = torch.zeros(n, j, dtype=torch.bool, device=device)

    @property
    def active(self) -> Tensor:
        """(N,) bool: some joint is broken now."""
        return self.severity.amax(1) > 0

    def draw(self, ids: Tensor, schedule: FaultSchedule, generator: torch.Generator) -> None:
        """Plans the new episodes of `ids` by the schedule."""
        m, j = len(ids), len(self.robot.joint_names)
        u = torch.rand(m, 4 * j + 2, generator=generator, device=self.severity.device)
        broken = self._who(ids, schedule, u[:, :j], u[:, 4 * j]) & (u[:, 4 * j + 1] < schedule.probability)[:, None]
        low, high = schedule.severity
        severity = torch.where(broken, low + (high - low) * u[:, j : 2 * j], 0.0)
        first, last = (round(t / self.step_dt) for t in schedule.onset_s)
        onset = (first + (last - first + 1) * u[:, 2 * j : 3 * j]).long().clamp(max=last)
        choices = torch.tensor([_KIND_ID[k] for k in schedule.kinds], device=self.severity.device)
        kind = choices[(u[:, 3 * j : 4 * j] * len(choices)).long().clamp(max=len(choices) - 1)]
        self.set_plan(ids, kind, severity, onset)

    def _who(self, ids: Tensor, schedule: FaultSchedule, order: Tensor, count: Tensor) -> Tensor:
        """(M, J) bool: which joints break."""
        broken = torch.zeros_like(order, dtype=torch.bool)
        if schedule.groups is not None:
            return broken.scatter(1, self._by_index(ids, schedule.groups)[:, None], True)
        names = schedule.joints or self.robot.fault_candidates
        candidates = torch.tensor([self.robot.joint_id(n) for n in names], device=order.device)
        low, high = schedule.num_joints
        if high > len(names):
            raise KoboshiError(f"a fault schedule breaks up to {high} joints of only {len(names)} candidates")
        number = (low + (high - low + 1) * count).long().clamp(max=high)
        rank = order[:, candidates].argsort(1).argsort(1)
        broken[:, candidates] = rank < number[:, None]
        return broken

    def _by_index(self, ids: Tensor, groups: tuple[tuple[str, ...], ...]) -> Tensor:
        """(M,) the joint that each environment's index stands for; see `FaultSchedule`."""
        block, rest = divmod(self._backend.num_envs, len(groups))
        if rest:
            raise KoboshiError(f"{self._backend.num_envs} environments cannot be divided among {len(groups)} groups")
        joints = torch.tensor([self.robot.joint_id(name) for group in groups for name in group], device=ids.device)
        size = torch.tensor([len(group) for group in groups], device=ids.device)
        group = ids // block
        return joints[(size.cumsum(0) - size)[group] + ids % size[group]]

    def set_plan(self, ids: Tensor, kind: Tensor, severity: Tensor, onset: Tensor) -> None:
        """Plans episodes outright. kind, onset (M, J) int64 (onset in control steps), severity (M, J)."""
        needed = {KINDS[k] for k in kind[severity > 0].unique().tolist()}
        if not needed <= self._kinds:
            raise KoboshiError(f"fault kinds {sorted(needed)} are planned, but prepared: {sorted(self._kinds)}")
        self.planned[ids], self.kind[ids] = severity, kind
        self.onset[ids] = torch.where(severity > 0, onset, NEVER)

    def advance(self, episode_step: Tensor) -> None:
        """Breaks what is due at the control step that begins now. episode_step (N,): steps done so far."""
        due = self.onset == episode_step[:, None]
        if due.any():
            rows, joints = due.nonzero(as_tuple=True)
            self.severity[rows, joints] = self.planned[rows, joints]
            self._apply(rows, joints)

    def _apply(self, rows: Tensor, joints: Tensor) -> None:
        for kind_id in self.kind[rows, joints].unique().tolist():
            chosen = self.kind[rows, joints] == kind_id
            getattr(self, f"_{KINDS[kind_id]}")(rows[chosen], joints[chosen], self.severity[rows, joints][chosen])

    def _torque_loss(self, rows: Tensor, joints: Tensor, severity: Tensor) -> None:
        field = self._fields["actuator_forcerange"]
        field[rows, joints] = self._original["actuator_forcerange"][rows, joints] * _column(1 - severity, field)

    def _locked(self, rows: Tensor, joints: Tensor, severity: Tensor) -> None:
        field = self._fields["jnt_range"]
        pos = self._qpos[rows, joints + 7].to(field.dtype)
        # The free joint is joint 0 of the model, so the actuated joints start at 1.
        field[rows, joints + 1] = torch.stack((pos - LOCK_SLACK, pos + LOCK_SLACK), dim=1)

    def _limited_range(self, rows: Tensor, joints: Tensor, severity: Tensor) -> None:
        """The range shrinks by the severity around where the joint is now."""
        field, original = self._fields["jnt_range"], self._original["jnt_range"][rows, joints + 1]
        pos = self._qpos[rows, joints + 7].to(field.dtype)[:, None]
        field[rows, joints + 1] = pos + (original - pos) * _column(1 - severity, field)

    def _braking(self, rows: Tensor, joints: Tensor, severity: Tensor) -> None:
        field = self._fields["dof_damping"]
        field[rows, joints + 6] = self._original["dof_damping"][rows, joints + 6] + (BRAKE_DAMPING * severity).to(
            field.dtype
        )

    def _sensor_freeze(self, rows: Tensor, joints: Tensor, severity: Tensor) -> None:
        self._is_frozen[rows, joints] = True
        self._frozen[rows, joints] = self._qpos[rows, joints + 7].float()

    def _sensor_bias(self, rows: Tensor, joints: Tensor, severity: Tensor) -> None:
        self._bias[rows, joints] = SENSOR_BIAS * severity

    def sense(self, joint_pos: Tensor) -> Tensor:
        """(N, J) what the encoders show for true positions."""
        return torch.where(self._is_frozen, self._frozen, joint_pos + self._bias) if self._senses else joint_pos

    def sense_rate(self, joint_vel: Tensor) -> Tensor:
        """(N, J) what the encoders show for true velocities."""
        return torch.where(self._is_frozen, 0.0, joint_vel) if self._senses else joint_vel

    def clear(self, ids: Tensor) -> None:
        """Undoes everything in `ids`, plans included."""
        for name, field in self._fields.items():
            field[ids] = self._original[name][ids]
        for value in (self.severity, self.planned, self.kind, self._bias, self._is_frozen):
            value[ids] = 0
        self.onset[ids] = NEVER

    def state_dict(self) -> dict[str, Tensor]:
        names = ("severity", "planned", "onset", "kind", "_frozen", "_bias", "_is_frozen")
        fields = {f"field.{name}": tensor for name, tensor in self._fields.items()}
        return {k: v.clone() for k, v in ({n: getattr(self, n) for n in names} | fields).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            target = self._fields[name.removeprefix("field.")] if name.startswith("field.") else getattr(self, name)
            target.copy_(value)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype)[:, None]
