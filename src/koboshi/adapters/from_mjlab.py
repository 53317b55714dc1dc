"""mjlab's environments (`ManagerBasedRlEnv`, 1.6) as ours. mjlab pins another MuJoCo than koboshi: it runs where the
former is installed, and this file and our learners import neither."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.vec_env import ActionSpace, Obs, ObsSpec, Step


class MjlabVecEnv:
    """A `VecEnv` over an mjlab environment that does not reset by itself, so that true last observations exist.

    Groups that mjlab does not concatenate are one observation a term, `group.term`.
    """

    def __init__(self, env: Any) -> None:
        """KoboshiError where `env.cfg.auto_reset` is on: with it, what a robot saw last is lost."""
        if env.cfg.auto_reset:
            raise KoboshiError("set auto_reset=False in the mjlab environment's settings: koboshi resets it itself")
        _check_memoryless(env.cfg.observations)
        self._env = env
        self.num_envs, self.device = env.num_envs, torch.device(env.device)
        self.action_space = ActionSpace(env.action_manager.total_action_dim)
        self._obs = self._flat(env.reset()[0])
        self.obs_spec = {group: ObsSpec(tuple(x.shape[1:]), x.dtype) for group, x in self._obs.items()}
        self._log: dict[str, list[float]] = {}

    @staticmethod
    def _flat(obs: Any) -> Obs:
        found: Obs = {}
        for group, value in obs.items():
            if isinstance(value, dict):
                found |= {f"{group}.{term}": x for term, x in value.items()}
            else:
                found[group] = value
        return found

    def reset(self, seed: int) -> Obs:
        """All of them."""
        self._obs = self._flat(self._env.reset(seed=seed)[0])
        return self._obs

    def step(self, action: Tensor) -> Step:
        """One control step; those that ended are reset, and their true last observations are in `final_obs`."""
        seen, reward, terminated, truncated, _ = self._env.step(action)
        final = {group: x.clone() for group, x in self._flat(seen).items()}
        truncated = truncated & ~terminated
        ended = (terminated | truncated).nonzero().squeeze(1)
        obs = final
        if len(ended):
            seen, extras = self._env.reset(env_ids=ended)
            fresh = self._flat(seen)
            self._note(extras)
            rows = (terminated | truncated).view(-1)
            obs = {g: torch.where(rows.view(-1, *[1] * (x.ndim - 1)), fresh[g], x) for g, x in final.items()}
        self._obs = obs
        return Step(obs, reward.float(), terminated, truncated, final, {})

    def _note(self, extras: dict[str, Any]) -> None:
        for name, value in (extras.get("log") or {}).items():
            self._log.setdefault(name, []).append(float(value))

    def pop_log(self) -> dict[str, float]:
        """Means of what mjlab logged since the last call."""
        found = {name: sum(values) / len(values) for name, values in self._log.items()}
        self._log.clear()
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """KoboshiError: mjlab's environments cannot be saved."""
        raise KoboshiError("an mjlab environment cannot be saved, so runs in it cannot be resumed")

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """KoboshiError; see `state_dict`."""
        self.state_dict()


def _check_memoryless(groups: Any) -> None:
    """KoboshiError where an observation remembers: a reset of some appends to the memories of all."""
    for name, group in groups.items():
        for term, cfg in (group.terms or {}).items():
            if getattr(cfg, "history_length", 0) or getattr(cfg, "delay_max_lag", 0) or (group.history_length or 0):
                raise KoboshiError(
                    f"mjlab's observation '{name}.{term}' has a history or a delay; resets disturb those"
                )
