"""K actor-critics as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from koboshi.algos.ppo.cfg import NetworkCfg
from koboshi.nets.distributions import Categorical, Distribution, Gaussian
from koboshi.nets.normalizer import Normalizer
from koboshi.nets.stack import StackedMLP
from koboshi.vec_env import ActionSpace


class ActorCritic(nn.Module):
    """K policies and value functions; inputs (K, B, d), raw: each member normalises on its own."""

    def __init__(
        self, members: int, policy_dim: int, critic_dim: int, action: ActionSpace, cfg: NetworkCfg
    ) -> None:
        super().__init__()
        self.members, self.action_space, self._bounds = members, action, cfg.log_std_range
        self.actor = StackedMLP(members, policy_dim, cfg.hidden, action.dim, last_gain=0.01)
        self.critic = StackedMLP(members, critic_dim, cfg.hidden, 1)
        self.policy_norm = Normalizer(members, policy_dim)
        self.critic_norm = Normalizer(members, critic_dim)
        self.value_norm = Normalizer(members, 1)
        self.log_std: nn.Parameter | None = None
        if not action.discrete:
            self.log_std = nn.Parameter(torch.full((members, 1, action.dim), cfg.init_log_std))

    def distribution(self, obs: Tensor, normalized: bool = False) -> Distribution:
        """The policy at raw (or already normalised) observations (K, B, d)."""
        return self.as_distribution(self.actor(obs if normalized else self.policy_norm(obs)))

    def as_distribution(self, output: Tensor) -> Distribution:
        """What the actor's output (K, B, A) means."""
        if self.log_std is None:
            return Categorical(output)
        return Gaussian(output, self.log_std.clamp(*self._bounds))

    def value(self, obs: Tensor) -> Tensor:
        """(K, B) in the reward's unit, from raw observations (K, B, d)."""
        return self.value_norm.denormalize(self.critic(self.critic_norm(obs))).squeeze(2)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """(K, B, A) the most likely actions."""
        return self.distribution(obs).mode()

    def member(self, k: int) -> dict[str, Tensor]:
        """The state of one member as a stack of one."""
        return {name: value[k : k + 1].clone() for name, value in self.state_dict().items()}

    @torch.no_grad()
    def set_member(self, k: int, state: dict[str, Tensor]) -> None:
        """Puts a stack of one at place k."""
        for name, value in self.state_dict().items():
            value[k : k + 1] = state[name]
