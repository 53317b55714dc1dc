"""skrl's PPO on our environments, to compare with ours on the very same work. Needs the extra `bench`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from koboshi.adapters.to_skrl import SkrlEnv
from koboshi.bench.rsl_rl import EPOCHS, HIDDEN, MINIBATCHES, ROLLOUT
from koboshi.errors import KoboshiError


def installed() -> bool:
    """Whether skrl can be imported."""
    return importlib.util.find_spec("skrl") is not None


def _network(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    widths = [inputs, *hidden]
    layers = [part for a, b in zip(widths[:-1], widths[1:], strict=True) for part in (nn.Linear(a, b), nn.ELU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def _width(space: Any) -> int:
    return int(space.shape[0])


def _models(env: SkrlEnv, hidden: Sequence[int], init_log_std: float) -> dict[str, Any]:
    """skrl's models are classes of its own; they are made here, so that importing this file does not need it."""
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model

    spaces: dict[str, Any] = {
        "observation_space": env.observation_space, "state_space": env.state_space, "action_space": env.action_space,
        "device": env.device,
    }  # fmt: skip
    actions, width = _width(env.action_space), _width(env.observation_space)
    told = width if env.state_space is None else _width(env.state_space)

    class Policy(GaussianMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            GaussianMixin.__init__(self)
            self.network = _network(width, hidden, actions)
            self.log_std = nn.Parameter(torch.full((actions,), init_log_std))

        def compute(self, inputs: dict[str, Tensor], role: str = "") -> tuple[Tensor, dict[str, Any]]:
            return self.network(inputs["observations"]), {"log_std": self.log_std}

    class Value(DeterministicMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            DeterministicMixin.__init__(self)
            self.network = _network(told, hidden, 1)

        def compute(self, inputs: dict[str, Tensor], role: str = "") -> tuple[Tensor, dict[str, Any]]:
            return self.network(inputs["observations" if env.state_space is None else "states"]), {}

    return {"policy": Policy(), "value": Value()}


def learner(
    env: SkrlEnv, hidden: Sequence[int] = HIDDEN, rollout: int = ROLLOUT, init_log_std: float = 0.0, seed: int = 1
) -> tuple[Callable[[], float], Callable[[Tensor], Tensor]]:
    """One iteration of skrl's PPO, which gives the mean reward of its steps; and the policy's most likely actions.

    Observations, states and values are normalised, the rate follows the KL divergence, time-outs are bootstrapped, and
    weights of losses and the gradient's clip are as ours; skrl's own defaults otherwise. KoboshiError without skrl.
    """
    if not installed():
        raise KoboshiError("skrl is not installed: pip install 'koboshi[bench]'")
    from skrl.agents.torch.ppo import PPO, PPO_CFG
    from skrl.memories.torch import RandomMemory
    from skrl.resources.preprocessors.torch import RunningStandardScaler
    from skrl.resources.schedulers.torch import KLAdaptiveLR

    torch.manual_seed(seed)
    models = {name: model.to(env.device) for name, model in _models(env, hidden, init_log_std).items()}
    size = {"device": env.device}
    cfg = PPO_CFG(
        rollouts=rollout,
        learning_epochs=EPOCHS,
        mini_batches=MINIBATCHES,
        time_limit_bootstrap=True,
        entropy_loss_scale=0.01,
        value_loss_scale=1.0,
        grad_norm_clip=1.0,
        learning_rate_scheduler=KLAdaptiveLR,
        learning_rate_scheduler_kwargs={"kl_threshold": 0.01},
        observation_preprocessor=RunningStandardScaler,
        observation_preprocessor_kwargs={"size": env.observation_space, **size},
        state_preprocessor=None if env.state_space is None else RunningStandardScaler,
        state_preprocessor_kwargs={} if env.state_space is None else {"size": env.state_space, **size},
        value_preprocessor=RunningStandardScaler,
        value_preprocessor_kwargs={"size": 1, **size},
    )
    cfg.experiment.write_interval = cfg.experiment.checkpoint_interval = 0
    memory = RandomMemory(memory_size=rollout, num_envs=env.num_envs, device=env.device)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    agent = PPO(models=models, memory=memory, state_space=env.state_space, device=env.device, cfg=cfg, **spaces)
    agent.init()
    agent.enable_training_mode(True)
    loop = _Loop(env, agent, rollout)
    return loop.iterate, loop.act


class _Loop:
    """skrl's sequential trainer, an iteration at a time."""

    def __init__(self, env: SkrlEnv, agent: Any, rollout: int) -> None:
        self._env, self._agent, self._rollout, self._t = env, agent, rollout, 0
        self._seen, _ = env.reset()
        self._state = env.state()

    def iterate(self) -> float:
        total = 0.0
        for _ in range(self._rollout):
            about = {"timestep": self._t, "timesteps": 10**9}
            self._agent.pre_interaction(**about)
            with torch.no_grad():
                actions, _ = self._agent.act(self._seen, self._state, **about)
                seen, reward, terminated, truncated, infos = self._env.step(actions)
                state = self._env.state()
                self._agent.record_transition(
                    observations=self._seen, states=self._state, actions=actions, rewards=reward,
                    next_observations=seen, next_states=state, terminated=terminated, truncated=truncated,
                    infos=infos, **about,
                )  # fmt: skip
            self._agent.post_interaction(**about)
            self._seen, self._state, self._t = seen, state, self._t + 1
            total += float(reward.mean())
        return total / self._rollout

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """(N, A) from (N, d)."""
        normal = self._agent._observation_preprocessor(obs)
        mean: Tensor = self._agent.policy.network(normal)
        return mean
