"""How a controller passes from one policy to another: settings, and actions that do not jump."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from koboshi.errors import at_least
from koboshi.specialists.routing import HEALTHY, Device, Route


@dataclass(frozen=True)
class SwitchCfg:
    """Beside `AlarmCfg`, what `koboshi switch` chooses."""

    dwell_steps: int = 0
    """Control steps for which whoever took charge keeps it, whatever is believed meanwhile."""
    blend_steps: int = 0
    """Control steps in which the action's jump at a switch fades out."""

    def __post_init__(self) -> None:
        at_least("switch.dwell_steps", self.dwell_steps, 0)
        at_least("switch.blend_steps", self.blend_steps, 0)


class Fade(NamedTuple):
    """What is left of the last switch, of N robots."""

    member: Tensor
    """(N,) int64 who acted, −1 the healthy policy."""
    mirrored: Tensor
    """(N,) bool."""
    given: Tensor
    """(N, A) the last action given."""
    jump: Tensor
    """(N, A) what the action would have jumped back by at the last switch."""
    left: Tensor
    """(N,) steps for which some of it is still added."""


def no_fade(num_envs: int, action_dim: int, device: Device) -> Fade:
    """Before the first action."""
    member = torch.full((num_envs,), HEALTHY, device=device)
    zero = torch.zeros(num_envs, action_dim, device=device)
    return Fade(member, torch.zeros_like(member, dtype=torch.bool), zero, zero, torch.zeros_like(member))


def faded(steps: int, action: Tensor, route: Route, reset: Tensor, fade: Fade) -> tuple[Tensor, Fade]:
    """(N, A) `action`, where somebody else acts than before on its way from the last one given; and what is left.

    Bumpless transfer: of the jump at a switch a share is added that falls linearly, from steps / (steps + 1) in the
    first step to 0 after `steps`. The policy that acts decides alone from the first step on, and none but it is asked.
    """
    other = (route.member != fade.member) | (route.mirrored != fade.mirrored)
    jump = torch.where(other[:, None], fade.given - action, fade.jump)
    left = torch.where(other, steps, (fade.left - 1).clamp(min=0)).masked_fill(reset, 0)
    action = action + jump * (left / (steps + 1))[:, None]
    return action, Fade(route.member, route.mirrored, action, jump, left)
