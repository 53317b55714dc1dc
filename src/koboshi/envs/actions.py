"""The action manager: terms side by side, bounds, and the delay with which targets reach the actuators."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from koboshi.envs.cfg import ActionsCfg
from koboshi.errors import KoboshiError
from koboshi.vec_env import ActionSpace

if TYPE_CHECKING:
    from koboshi.envs.env import Env


class JointTargets(NamedTuple):
    """What a term's numbers mean: target = offset + scale · action, for its joints."""

    joints: list[int]
    offset: Tensor
    """(n,)."""
    scale: Tensor
    """(n,)."""


_VALUES = ("value", "previous", "before_previous")


class ActionManager:
    """value, previous, before_previous (N, A): the policy's numbers in force, clipped, and those of two steps before.

    Every actuated joint is driven by one term; a delay of d physics steps leaves the old targets in force for the
    first d physics steps of a control step (for longer ones, whole control steps too). MuJoCo's own actuator delay
    holds them back, so that a control step stays one call of physics; `ctrl` is what was asked last.
    """

    def __init__(self, cfg: ActionsCfg, env: Env) -> None:
        self._cfg, self._decimation, self._backend = cfg, env.cfg.decimation, env.backend
        self._ctrl, self._columns = env.ctrl, env.joints.actuator
        terms = {name: term for name, term in cfg.terms.items() if term is not None}
        targets = {name: term.func(env, term, env.robot.joint_ids(*term.joints)) for name, term in terms.items()}
        self.joints = [joint for target in targets.values() for joint in target.joints]
        _check_joints(self.joints, env.robot.joint_names)
        order = torch.tensor(self.joints, device=env.device).argsort()
        # Columns of the policy's numbers by joint; in place where they are in the robot's order already.
        self._order = None if bool((order.cpu() == torch.arange(len(order))).all()) else order
        by_joint = slice(None) if self._order is None else self._order
        offset, scale = (torch.cat([getattr(t, n) for t in targets.values()]) for n in ("offset", "scale"))
        self.offset, self.scale = offset[by_joint], scale[by_joint]
        bounds = [term.clip for name, term in terms.items() for _ in targets[name].joints]
        self.space = ActionSpace(len(bounds), False, tuple(b[0] for b in bounds), tuple(b[1] for b in bounds))
        self._low, self._high = (torch.tensor(side, device=env.device) for side in zip(*bounds, strict=True))
        n, width = env.num_envs, self.space.dim
        self.value, self.previous, self.before_previous = (torch.zeros(n, width, device=env.device) for _ in range(3))
        self._timestep, self._fields = env.cfg.sim.timestep, env.fields
        if cfg.delay[1]:
            self._fields.expand("actuator_delay")
            self._history = env.backend.read("history")
            self._past = env.joints.past_controls

    def take(self, action: Tensor) -> None:
        """The policy's numbers (N, A) for the control step that begins."""
        self.before_previous, self.previous = self.previous, self.value
        self.value = action.clamp(self._low, self._high)

    def targets(self) -> Tensor:
        """(N, J) what the actuators are asked for, in their units."""
        value = self.value if self._order is None else self.value[:, self._order]
        return torch.addcmul(self.offset, value, self.scale)

    def drive(self) -> None:
        """`decimation` physics steps under the targets."""
        self._ctrl[:, self._columns] = self.targets().to(self._ctrl.dtype)
        self._backend.step(self._decimation)

    def restart(self, mask: Tensor, generator: torch.Generator) -> None:
        """New episodes: actions of zero, and a delay of their own."""
        rows = mask[:, None]
        for name in _VALUES:
            setattr(self, name, getattr(self, name).masked_fill(rows, 0.0))
        self._ctrl[:, self._columns] = torch.where(rows, self.offset.to(self._ctrl.dtype), self._ctrl[:, self._columns])
        if self._cfg.delay[1]:
            self._delay(mask, generator)

    def _delay(self, mask: Tensor, generator: torch.Generator) -> None:
        old = self._history[:, self._past]
        self._history[:, self._past] = torch.where(mask[:, None, None], self.offset[:, None].to(old.dtype), old)
        low, high = self._cfg.delay
        lag = torch.randint(low, high + 1, (len(mask), 1), generator=generator, device=mask.device)
        # Half a step short of its sample's time, which was summed up: rounding must not choose the one before.
        late = ((lag - 0.5) * self._timestep).clamp(min=0)
        self._fields.randomise("actuator_delay", mask, late.expand_as(self._fields.live("actuator_delay")))

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in _VALUES}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        device = self.value.device
        for name in _VALUES:
            setattr(self, name, state[name].to(device, copy=True))


def _check_joints(joints: list[int], names: tuple[str, ...]) -> None:
    for j, name in enumerate(names):
        if joints.count(j) != 1:
            raise KoboshiError(f"joint '{name}' is driven by {joints.count(j)} action terms, and each needs one")
