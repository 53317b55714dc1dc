"""The whole controller at run time: healthy policy, bank of specialists, router."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.routing import Device, Route, Router
from koboshi.specialists.switching import faded, no_fade
from koboshi.vec_env import Obs, Policy, State


class Decision(NamedTuple):
    """action (N, A); route: who acts and what the router believes."""

    action: Tensor
    route: Route


class Controller:
    """Pure given its carried state: streamed or batched, the same observations give the same actions."""

    def __init__(self, healthy: Policy, bank: SpecialistBank | None, router: Router, blend_steps: int = 0) -> None:
        """Without a bank the healthy policy always acts, whatever the router says.

        `blend_steps`: control steps in which the action's jump at a switch fades out; see `switching.faded`.
        """
        self.healthy, self.bank, self.router, self.blend_steps = healthy, bank, router, blend_steps

    def initial_state(self, num_envs: int, device: Device = "cpu") -> State:
        """(healthy policy's, bank's, router's, switch's) before the first observation; `device` is where observations
        lie."""
        device = torch.device(device)
        bank: State = ()
        fade: State = ()
        if self.bank is not None:
            bank = self.bank.initial_state(num_envs, device)
            if self.blend_steps:
                fade = no_fade(num_envs, self.bank.policy.action_space.dim, device)
        healthy, router = (part.initial_state(num_envs, device) for part in (self.healthy, self.router))
        return healthy, bank, router, fade

    @torch.no_grad()
    def act(self, obs: Obs, reset: Tensor, state: State) -> tuple[Decision, State]:
        """`reset` (N,) bool: rows whose observation is the first of an episode."""
        healthy, bank, router, fade = state
        route, router = self.router.route(obs, reset, router)
        # The healthy policy listens on while another acts, so that it knows where it is when it takes over.
        action, healthy = self.healthy.act(obs, healthy, reset)
        if self.bank is not None:
            action, bank = self.bank.act(obs, route, action, reset, bank)
            if self.blend_steps:
                action, fade = faded(self.blend_steps, action, route, reset, fade)
        return Decision(action, route), (healthy, bank, router, fade)
