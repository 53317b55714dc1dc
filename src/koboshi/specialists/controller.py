"""The whole controller at run time: healthy policy, bank of specialists, router."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.routing import Device, Route, Router
from koboshi.vec_env import Obs, Policy, State


class Decision(NamedTuple):
    """action (N, A); route: who acts and what the router believes."""

    action: Tensor
    route: Route


class Controller:
    """Pure given its carried state: streamed or batched, the same observations give the same actions."""

    def __init__(self, healthy: Policy, bank: SpecialistBank | None, router: Router) -> None:
        """Without a bank the healthy policy always acts, whatever the router says."""
        self.healthy, self.bank, self.router = healthy, bank, router

    def initial_state(self, num_envs: int, device: Device = "cpu") -> State:
        """(healthy policy's, bank's, router's) before the first observation; `device` is where observations lie."""
        device = torch.device(device)
        bank = self.bank.initial_state(num_envs, device) if self.bank is not None else ()
        return self.healthy.initial_state(num_envs, device), bank, self.router.initial_state(num_envs, device)

    @torch.no_grad()
    def act(self, obs: Obs, reset: Tensor, state: State) -> tuple[Decision, State]:
        """`reset` (N,) bool: rows whose observation is the first of an episode."""
        healthy, bank, router = state
        route, router = self.router.route(obs, reset, router)
        # The healthy policy listens on while another acts, so that it knows where it is when it takes over.
        action, healthy = self.healthy.act(obs, healthy, reset)
        if self.bank is not None:
            action, bank = self.bank.act(obs, route, action, reset, bank)
        return Decision(action, route), (healthy, bank, router)
