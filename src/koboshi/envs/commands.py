"""Velocity commands: drawn at a reset and every few seconds after."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from koboshi.envs.cfg import HeadingCfg, VelocityCommandCfg
from koboshi.envs.math import wrapped
from koboshi.sim import anyone


class VelocityCommand:
    """value (N, 3): v_x, v_y in the yaw frame (m/s), yaw rate (rad/s).

    Where a heading is held, heading (N,) rad is the target and the yaw rate follows from the error at each step.
    """

    def __init__(
        self, cfg: VelocityCommandCfg, num_envs: int, step_dt: float, device: torch.device, *, holds: bool = False
    ) -> None:
        """`holds`: whether somebody will ask for headings, though the settings name none."""
        self.cfg, self._heading = cfg, cfg.heading or (HeadingCfg() if holds else None)
        self.scale = 1.0
        """Share of the ranges that is drawn from; a curriculum may widen it."""
        self._step_dt = step_dt
        self._low = torch.tensor([cfg.lin_vel_x[0], cfg.lin_vel_y[0], cfg.ang_vel_z[0]], device=device)
        self._high = torch.tensor([cfg.lin_vel_x[1], cfg.lin_vel_y[1], cfg.ang_vel_z[1]], device=device)
        self.value = torch.zeros(num_envs, 3, device=device)
        self.heading = torch.zeros(num_envs, device=device)
        self.holds_heading = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._left = torch.zeros(num_envs, device=device)

    def resample(self, mask: Tensor, generator: torch.Generator) -> None:
        """New commands for the environments in `mask`."""
        draw = torch.rand(len(mask), 7, generator=generator, device=mask.device)
        value = (self._low + (self._high - self._low) * draw[:, :3]) * self.scale
        moves = draw[:, 3] >= self.cfg.standing_fraction
        self.value = torch.where(mask[:, None], value * moves[:, None], self.value)
        low, high = self.cfg.resampling_time_s
        self._left = torch.where(mask, low + (high - low) * draw[:, 4], self._left)
        if self.cfg.heading is not None:
            low, high = self.cfg.heading.range
            self.heading = torch.where(mask, low + (high - low) * draw[:, 5], self.heading)
            holds = moves & (draw[:, 6] < self.cfg.heading.fraction)
            self.holds_heading = torch.where(mask, holds, self.holds_heading)

    def fix(self, mask: Tensor, value: Tensor) -> None:
        """Holds a command until the environment's next reset. value (N, 3)."""
        self.value = torch.where(mask[:, None], value, self.value)
        self._left = self._left.masked_fill(mask, math.inf)
        self.holds_heading = self.holds_heading & ~mask

    def hold(self, mask: Tensor, heading: Tensor) -> None:
        """Holds headings (N,) rad in place of the yaw rates."""
        self.heading = torch.where(mask, heading, self.heading)
        self.holds_heading = self.holds_heading | mask

    def step(self, heading: Tensor, generator: torch.Generator, ended: Tensor) -> None:
        """A control step has passed; heading (N,) where the robots look now, rad. Where episodes `ended` (N,)
        commands stay until a reset: by them an episode is judged."""
        self._left = self._left - self._step_dt
        due = (self._left <= 0) & ~ended
        if anyone(due):
            self.resample(due, generator)
        self.track(heading)

    def track(self, heading: Tensor) -> None:
        """Sets the yaw rates that turn towards the headings that are held."""
        if self._heading is None:
            return
        error = wrapped(self.heading - heading)
        rate = (self._heading.stiffness * error).clamp(self.cfg.ang_vel_z[0], self.cfg.ang_vel_z[1])
        turned = torch.cat((self.value[:, :2], rate[:, None]), dim=1)
        self.value = torch.where(self.holds_heading[:, None], turned, self.value)

    def state_dict(self) -> dict[str, Tensor]:
        own = {"value": self.value, "left": self._left, "heading": self.heading, "holds": self.holds_heading}
        return {name: x.clone() for name, x in own.items()} | {"scale": torch.tensor(self.scale)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        device = self.value.device
        names = ("value", "left", "heading", "holds")
        self.value, self._left, self.heading, self.holds_heading = (state[n].to(device, copy=True) for n in names)
        self.scale = float(state["scale"])
