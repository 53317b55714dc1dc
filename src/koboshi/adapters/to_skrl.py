"""Our environments as skrl's wrapped ones. Needs gymnasium, which skrl brings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from koboshi.adapters.log import PeriodicLog
from koboshi.adapters.spaces import action_space, observation_space
from koboshi.errors import unknown
from koboshi.vec_env import VecEnv


class SkrlEnv:
    """A `VecEnv` of ours as skrl's trainers and agents take it (its `Wrapper`): `policy` acts, `critic` is the state.

    Like all environments that reset themselves it gives skrl the observation after a reset as the one that follows an
    end, so skrl bootstraps a time-out from there.
    """

    num_agents = 1

    def __init__(self, env: VecEnv, policy: str = "policy", critic: str | None = "critic", seed: int = 0) -> None:
        self._env, self._policy, self._seed = env, policy, seed
        if critic is not None and critic not in env.obs_spec:
            raise unknown("observation group", critic, env.obs_spec)
        self._critic = critic
        self.num_envs, self.device = env.num_envs, env.device
        self.observation_space = observation_space(env.obs_spec, policy)
        self.state_space = None if self._critic is None else observation_space(env.obs_spec, self._critic)
        self.action_space = action_space(env.action_space)
        self._obs: Tensor | None = None
        self._state: Tensor | None = None
        self._log = PeriodicLog(env)

    def _seen(self, obs: dict[str, Tensor]) -> Tensor:
        """(N, d): a copy, for ours may be overwritten by the next step."""
        self._state = None if self._critic is None else obs[self._critic].flatten(1).clone()
        return obs[self._policy].flatten(1).clone()

    def reset(self) -> tuple[Tensor, dict[str, Any]]:
        """Starts all episodes the first time; later they go on, as skrl expects of vectorised environments."""
        if self._obs is None:
            self._obs = self._seen(self._env.reset(self._seed))
        return self._obs, {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """(N, d) observations, then (N, 1) each: reward, terminated, truncated; and what there is to log."""
        step = self._env.step(actions.flatten() if self._env.action_space.discrete else actions)
        self._obs = self._seen(step.obs)
        reward, terminated, truncated = (x.clone()[:, None] for x in (step.reward, step.terminated, step.truncated))
        return self._obs, reward, terminated, truncated, self._log.after_step()

    def state(self) -> Tensor | None:
        """(N, d) what the critic sees of the present observation."""
        return self._state

    def render(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: koboshi films what was recorded (`koboshi play`)."""

    def close(self) -> None:
        """Nothing is open."""
