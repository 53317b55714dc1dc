"""Velocity commands: drawn at a reset and every few seconds after."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.envs.cfg import VelocityCommandCfg


class VelocityCommand:
    """`value` (N, 3): v_x, v_y in the yaw frame (m/s), yaw rate (rad/s)."""

    def __init__(self, cfg: VelocityCommandCfg, num_envs: int, step_dt: float, device: torch.device) -> None:
        self.cfg = cfg
        self.scale = 1.0
        self._step_dt = step_dt
        self._low = torch.tensor([cfg.lin_vel_x[0], cfg.lin_vel_y[0], cfg.ang_vel_z[0]], device=device)
        self._high = torch.tensor([cfg.lin_vel_x[1], cfg.lin_vel_y[1], cfg.ang_vel_z[1]], device=device)
        self.value = torch.zeros(num_envs, 3, device=device)
        self._left = torch.zeros(num_envs, device=device)

    def resample(self, ids: Tensor, generator: torch.Generator) -> None:
        """New commands for `ids`."""
        draw = torch.rand(len(ids), 5, generator=generator, device=self.value.device)
        value = (self._low + (self._high - self._low) * draw[:, :3]) * self.scale
        self.value[ids] = value * (draw[:, 3:4] >= self.cfg.standing_fraction)
        low, high = self.cfg.resampling_time_s
        self._left[ids] = low + (high - low) * draw[:, 4]

    def fix(self, ids: Tensor, value: Tensor) -> None:
        """Holds a command until the environment's next reset. value (M, 3)."""
        self.value[ids] = value
        self._left[ids] = float("inf")

    def step(self, generator: torch.Generator) -> None:
        """A control step has passed."""
        self._left -= self._step_dt
        due = (self._left <= 0).nonzero().squeeze(1)
        if len(due):
            self.resample(due, generator)

    def state_dict(self) -> dict[str, Tensor]:
        return {"value": self.value.clone(), "left": self._left.clone(), "scale": torch.tensor(self.scale)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.value.copy_(state["value"])
        self._left.copy_(state["left"])
        self.scale = float(state["scale"])
