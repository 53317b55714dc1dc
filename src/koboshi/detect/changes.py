"""What changes from one row to the next: events that one row alone cannot show."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from koboshi.detect.base import CLIP, median_where
from koboshi.detect.spec import DetectorSpec

ROWS = 2
"""Numbers a joint: its jump, its change."""


class Changes(nn.Module):
    """An encoder that jumps or sticks shows angles that its own speeds do not explain. With q', q̇' of the row before
    and Δt the control period, for each joint

        jump = q − q' − (q̇ + q̇') Δt / 2   and   change = q̇ − q̇',

    each over what is usual in joints that are well, jumps then as asinh; 0 in an episode's first row, and the jump of
    a joint whose angle is not sensed. Carried: each joint's angle and speed, and whether there was a row at all.
    """

    columns: Tensor
    """(2, J) where among the senses each joint's angle and speed lie; one past the last where it is not sensed."""
    inv_scale: Tensor
    """(2, J)."""
    sensed: Tensor

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self._joints, self._dt = len(spec.joint_names), spec.control_dt
        self.carried = 2 * self._joints + 1
        columns = torch.stack([spec.place(term, spec.obs_dim) for term in ("joint_pos", "joint_vel")])
        self.register_buffer("columns", columns)
        self.register_buffer("sensed", columns < spec.obs_dim, persistent=False)
        self.register_buffer("inv_scale", torch.ones(2, self._joints))

    def forward(self, obs: Tensor, keep: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(T, N, D) senses, (T, N) keep, 0 where a row begins an episode, (N, S) carried -> (T, N, 2, J), (N, S)."""
        now = self._motion(obs)
        rows = torch.cat((state[None, :, :-1].unflatten(-1, (2, self._joints)), now))
        known = torch.cat((keep[:1] * state[:, -1], keep[1:]))
        found = self._between(rows[:-1], now) * (self.inv_scale * known[..., None, None])
        scaled = torch.stack((found[..., 0, :].asinh(), found[..., 1, :].clamp(-CLIP, CLIP)), -2)
        return scaled, torch.cat((now[-1].flatten(1), torch.ones_like(state[:, :1])), 1)

    def fit(self, before: Tensor, now: Tensor, sound: Tensor) -> None:
        """Sets what is usual from R pairs of rows (R, D), and (R, J) which joints were well in both."""
        found = self._between(self._motion(before), self._motion(now))
        usual = median_where(found.abs().flatten(1), sound.repeat(1, 2)).nan_to_num(0.0).clamp_min(1e-4)
        self.inv_scale.copy_(1 / usual.view(2, -1))

    def _motion(self, obs: Tensor) -> Tensor:
        """(…, D) -> (…, 2, J) angles and speeds."""
        return F.pad(obs, (0, 1))[..., self.columns]

    def _between(self, before: Tensor, now: Tensor) -> Tensor:
        """(…, 2, J) motion in two rows, one after the other -> (…, 2, J) jumps, rad, and changes of speed, rad/s."""
        (q0, v0), (q1, v1) = before.unbind(-2), now.unbind(-2)
        return torch.stack((q1 - q0 - 0.5 * self._dt * (v0 + v1), v1 - v0), -2) * self.sensed
