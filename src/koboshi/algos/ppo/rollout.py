"""Transitions of one iteration and their advantages."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor


@dataclass
class Rollout:
    """T steps of N environments. `valid` (T, N) says which transitions may be learnt from."""

    policy_obs: Tensor
    """(T, N, d)."""
    critic_obs: Tensor
    """(T, N, c)."""
    action: Tensor
    """(T, N, A), or (T, N) where discrete."""
    reward: Tensor
    """(T, N)."""
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    _: KW_ONLY
    last_critic_obs: Tensor
    """(N, c) after the last step, of episodes that go on."""
    cut: list[tuple[int, Tensor, Tensor]]
    """(t, ids, true final critic observations) where time ran out."""


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), all (T, N).

    `next_value[t]` is the value of the true observation after step t: of `final_obs` where time ran out.
    """
    delta = reward + gamma * next_value * ~terminated - value
    keep = gamma * lam * ~(terminated | truncated)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + keep[t] * running
        advantage[t] = running
    return advantage
