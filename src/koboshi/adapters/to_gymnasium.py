"""Our environments as Gymnasium's `VectorEnv`. Needs gymnasium (extra `gym`)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from koboshi.adapters.spaces import action_space, observation_space
from koboshi.vec_env import Obs, VecEnv


class KoboshiVectorEnv(VectorEnv):
    """NumPy in and out. An environment that ends resets in the same step; `infos["final_obs"]` has what it saw last."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(self, env: VecEnv, groups: tuple[str, ...] = ("policy",)) -> None:
        """One group is given as an array, several as a dict of them."""
        self._env, self._groups, self.num_envs = env, groups, env.num_envs
        found = {group: observation_space(env.obs_spec, group) for group in groups}
        self.single_observation_space: gym.Space[Any] = (
            found[groups[0]] if len(groups) == 1 else spaces.Dict(dict(found))
        )
        self.single_action_space = action_space(env.action_space)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _given(self, obs: Obs) -> Any:
        """Copies, for ours may be overwritten by the next step."""
        found = {group: obs[group].cpu().numpy().copy() for group in self._groups}
        return found[self._groups[0]] if len(found) == 1 else found

    def _rows(self, given: Any) -> Any:
        """(N, …), or of several groups an array of one dict an environment, as Gymnasium has it."""
        if len(self._groups) == 1:
            return given
        rows = np.empty(self.num_envs, dtype=object)
        rows[:] = [{group: x[i] for group, x in given.items()} for i in range(self.num_envs)]
        return rows

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """All of them; a seed a single environment has no meaning here, so one is for all."""
        first = seed[0] if isinstance(seed, list) else seed
        drawn = int(np.random.default_rng(first).integers(2**31)) if first is None else int(first)
        return self._given(self._env.reset(drawn)), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """actions: (N, A), or (N,) where discrete."""
        given = torch.as_tensor(np.asarray(actions)).to(self._env.device)
        step = self._env.step(given if self._env.action_space.discrete else given.float())
        terminated, truncated = (x.cpu().numpy().copy() for x in (step.terminated, step.truncated))
        infos: dict[str, Any] = {}
        done = terminated | truncated
        if done.any():
            infos = {"final_obs": self._rows(self._given(step.final_obs)), "_final_obs": done}
        return self._given(step.obs), step.reward.cpu().numpy().copy(), terminated, truncated, infos
