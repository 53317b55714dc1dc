"""Our environments in rsl_rl's words, to time its PPO beside ours on the very same work. Needs the extra `bench`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable
from typing import Any

from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.vec_env import Obs, VecEnv

HIDDEN = (128, 128, 128)
EPOCHS, MINIBATCHES, ROLLOUT = 5, 4, 24


def installed() -> bool:
    """Whether rsl_rl can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("rsl_rl", "tensordict"))


class RslVecEnv:
    """A `VecEnv` of ours as rsl_rl's `VecEnv`, with the groups that actor and critic see."""

    cfg: dict[str, Any] = {}

    def __init__(self, env: VecEnv, groups: tuple[str, ...], max_episode_length: int, seed: int = 0) -> None:
        import torch

        self._env, self._groups = env, groups
        self.num_envs, self.num_actions, self.device = env.num_envs, env.action_space.dim, env.device
        self.max_episode_length = max_episode_length
        self.episode_length_buf = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
        self._obs = self._given(env.reset(seed))

    def _given(self, obs: Obs) -> Any:
        """A copy: rsl_rl stores an observation only after the next step, when ours may be overwritten."""
        from tensordict import TensorDict

        return TensorDict({group: obs[group].clone() for group in self._groups}, batch_size=[self.num_envs])

    def get_observations(self) -> Any:
        """The observation to act on next."""
        return self._obs

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
        """One control step; time-outs are told apart, so that rsl_rl bootstraps their values."""
        step = self._env.step(actions)
        self._obs = self._given(step.obs)
        return self._obs, step.reward, step.terminated | step.truncated, {"time_outs": step.truncated}


def learner(env: VecEnv, max_episode_length: int, rollout: int = ROLLOUT) -> Callable[[], None]:
    """rsl_rl's `OnPolicyRunner` on `env`: a function that makes one iteration of plain PPO.

    Networks of 128 × 3, observations normalised as ours are, its own defaults otherwise. KoboshiError without rsl_rl.
    """
    if not installed():
        raise KoboshiError("rsl_rl is not installed: pip install 'koboshi[bench]'")
    from rsl_rl.runners import OnPolicyRunner

    critic = "critic" if "critic" in env.obs_spec else "policy"
    wrapped: Any = RslVecEnv(env, tuple(dict.fromkeys(("policy", critic))), max_episode_length)
    network = {
        "class_name": "rsl_rl.models:MLPModel", "hidden_dims": list(HIDDEN), "activation": "elu",
        "obs_normalization": True,
    }  # fmt: skip
    cfg: dict[str, Any] = {
        "num_steps_per_env": rollout,
        "save_interval": 10**9,
        "obs_groups": {"actor": ["policy"], "critic": [critic]},
        "actor": network | {"distribution_cfg": {"class_name": "rsl_rl.modules:GaussianDistribution"}},
        "critic": dict(network),
        "algorithm": {
            "class_name": "rsl_rl.algorithms:PPO", "num_learning_epochs": EPOCHS, "num_mini_batches": MINIBATCHES,
            "clip_param": 0.2, "gamma": 0.99, "lam": 0.95, "value_loss_coef": 1.0, "entropy_coef": 0.01,
            "learning_rate": 1e-3, "max_grad_norm": 1.0, "schedule": "adaptive", "desired_kl": 0.01,
        },
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its networks
        runner = OnPolicyRunner(wrapped, cfg, log_dir=None, device=str(env.device))
    return lambda: runner.learn(1)
