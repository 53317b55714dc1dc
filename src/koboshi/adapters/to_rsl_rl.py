"""Our environments as rsl_rl's `VecEnv`. Needs tensordict, which rsl_rl brings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from koboshi.adapters.log import PeriodicLog
from koboshi.vec_env import Obs, VecEnv


class RslVecEnv:
    """A `VecEnv` of ours as rsl_rl's `VecEnv`, with the groups that actor and critic see."""

    cfg: dict[str, Any] = {}

    def __init__(self, env: VecEnv, groups: tuple[str, ...], max_episode_length: int, seed: int = 0) -> None:
        """`max_episode_length`: control steps. First episodes are spread by `env.random_initial_length`, not by
        rsl_rl's `init_at_random_ep_len`."""
        self._env, self._groups = env, groups
        self.num_envs, self.num_actions, self.device = env.num_envs, env.action_space.dim, env.device
        self.max_episode_length = max_episode_length
        self.episode_length_buf = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
        self._obs = self._given(env.reset(seed))
        self._log = PeriodicLog(env)

    def _given(self, obs: Obs) -> Any:
        """A copy: rsl_rl stores an observation only after the next step, when ours may be overwritten."""
        from tensordict import TensorDict

        return TensorDict({group: obs[group].clone() for group in self._groups}, batch_size=[self.num_envs])

    def get_observations(self) -> Any:
        """The observation to act on next."""
        return self._obs

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
        """One control step; time-outs are told apart, so that rsl_rl bootstraps their values, and episodes logged."""
        step = self._env.step(actions)
        self._obs = self._given(step.obs)
        extras = {"time_outs": step.truncated} | self._log.after_step()
        return self._obs, step.reward, step.terminated | step.truncated, extras
