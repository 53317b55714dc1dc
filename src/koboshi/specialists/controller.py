"""The whole controller at run time: healthy policy, bank of specialists, router."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from koboshi.algos.ppo import ActorCritic
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.routing import NOBODY, Device, Route, Router
from koboshi.vec_env import Obs


class Decision(NamedTuple):
    """action (N, A); route: who acts and what the router believes."""

    action: Tensor
    route: Route


class Controller:
    """Pure given its carried state: streamed or batched, the same observations give the same actions."""

    def __init__(self, healthy: ActorCritic, bank: SpecialistBank | None, router: Router) -> None:
        """Without a bank the healthy policy always acts, whatever the router says."""
        self.healthy, self.bank, self.router = healthy, bank, router

    def initial_state(self, num_envs: int, device: Device = "cpu") -> Any:
        """The router's state before the first observation; `device` is where observations lie."""
        return self.router.initial_state(num_envs, device)

    @torch.no_grad()
    def act(self, obs: Obs, reset: Tensor, state: Any) -> tuple[Decision, Any]:
        """`reset` (N,) bool: rows whose observation is the first of an episode."""
        route, state = self.router.route(obs, reset, state)
        action = self.healthy.act(obs["policy"].unsqueeze(0)).squeeze(0)
        if self.bank is not None and bool((route.joint != NOBODY).any()):
            action = self.bank.act(obs["policy"], route.joint, action)
        return Decision(action, route), state
