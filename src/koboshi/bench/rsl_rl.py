"""rsl_rl's PPO on our environments, to time it beside ours on the very same work. Needs the extra `bench`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from koboshi.adapters.to_rsl_rl import RslVecEnv
from koboshi.errors import KoboshiError
from koboshi.vec_env import Obs, VecEnv

HIDDEN = (128, 128, 128)
EPOCHS, MINIBATCHES, ROLLOUT = 5, 4, 24


def installed() -> bool:
    """Whether rsl_rl can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("rsl_rl", "tensordict"))


def learner(
    env: VecEnv, max_episode_length: int, rollout: int = ROLLOUT, init_log_std: float = 0.0, seed: int = 0
) -> tuple[Callable[[], None], Callable[[Obs], Tensor]]:
    """rsl_rl's `OnPolicyRunner` on `env`: one iteration of plain PPO; and the policy's most likely actions (N, A).

    Networks of 128 × 3, observations normalised as ours are, its own defaults otherwise. KoboshiError without rsl_rl.
    """
    if not installed():
        raise KoboshiError("rsl_rl is not installed: pip install 'koboshi[bench]'")
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    critic = "critic" if "critic" in env.obs_spec else "policy"
    wrapped: Any = RslVecEnv(env, tuple(dict.fromkeys(("policy", critic))), max_episode_length, seed)
    network = {
        "class_name": "rsl_rl.models:MLPModel", "hidden_dims": list(HIDDEN), "activation": "elu",
        "obs_normalization": True,
    }  # fmt: skip
    noise = {"class_name": "rsl_rl.modules:GaussianDistribution", "init_std": math.exp(init_log_std)}
    cfg: dict[str, Any] = {
        "num_steps_per_env": rollout,
        "save_interval": 10**9,
        "obs_groups": {"actor": ["policy"], "critic": [critic]},
        "actor": network | {"distribution_cfg": noise},
        "critic": dict(network),
        "algorithm": {
            "class_name": "rsl_rl.algorithms:PPO", "num_learning_epochs": EPOCHS, "num_mini_batches": MINIBATCHES,
            "clip_param": 0.2, "gamma": 0.99, "lam": 0.95, "value_loss_coef": 1.0, "entropy_coef": 0.01,
            "learning_rate": 1e-3, "max_grad_norm": 1.0, "schedule": "adaptive", "desired_kl": 0.01,
        },
    }  # fmt: skip
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its networks
        runner = OnPolicyRunner(wrapped, cfg, log_dir=None, device=str(env.device))

    def act(obs: Obs) -> Tensor:
        actions: Tensor = runner.get_inference_policy()(TensorDict({"policy": obs["policy"]}, [len(obs["policy"])]))
        return actions

    return lambda: runner.learn(1), act
