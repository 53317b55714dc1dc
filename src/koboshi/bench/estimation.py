"""How well a policy guesses what it cannot sense, and follows commands, on all levels of its ground alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from koboshi.bench.rollout import kept_events, on_all_levels
from koboshi.envs import Env, EnvCfg
from koboshi.nets.actors import Estimator
from koboshi.policies import ActorCritic
from koboshi.vec_env import Obs


def level_spread(cfg: EnvCfg) -> EnvCfg:
    """The task without a curriculum or what strikes in mid-episode, its robots on random levels of its ground."""
    return replace(
        cfg, scene=on_all_levels(cfg.scene), curriculum={}, events=kept_events(cfg.events), random_initial_length=True
    )


@torch.no_grad()
def estimation(cfg: EnvCfg, policy: ActorCritic, seconds: float, seed: int) -> dict[str, Any]:
    """Root mean squares of errors over all robots and steps: `estimate`, name -> of what the policy guesses, in the
    unit of the term; `command_as_estimate`, of the commanded v_x and v_y taken for the base's velocity, m/s, which
    is what one knows without an estimator; `vx_rmse` of tracking, m/s. And `falls_a_minute` of a robot.

    The policy is deterministic. An estimate of the next step is held against the next step, falls included.
    """
    env = Env(level_spread(cfg))
    actor, errors = _Actor(policy, env), _Squares()
    obs, reset, falls = env.reset(seed), torch.ones(env.num_envs, dtype=torch.bool, device=env.device), 0.0
    steps = round(seconds / env.step_dt)
    for _ in range(steps):
        velocity, command = env.state.base_lin_vel, env.command.value
        errors.add("command_as_estimate", torch.cat((command[:, :2] - velocity[:, :2], -velocity[:, 2:]), dim=1))
        errors.add("vx_rmse", command[:, :1] - env.state.lin_vel_yaw[:, :1])
        action, guesses = actor(obs, reset)
        now = {group: x.clone() for group, x in obs.items()}
        step = env.step(action)
        for name, error in actor.errors(guesses, now, step.final_obs).items():
            errors.add(name, error)
        obs, reset = step.obs, step.terminated | step.truncated
        falls += float(step.terminated.sum())
    env.settle()
    minutes = steps * env.step_dt * env.num_envs / 60
    found = errors.roots()
    return {
        "estimate": {name: found[name] for name in actor.names},
        "command_as_estimate": found["command_as_estimate"],
        "vx_rmse": found["vx_rmse"],
        "falls_a_minute": falls / minutes,
    }


class _Actor:
    """A policy that acts, and that says what it guesses where it guesses anything."""

    def __init__(self, policy: ActorCritic, env: Env) -> None:
        self._policy, self._blocks = policy, policy.single()
        self._state = self._blocks.initial_state(env.num_envs, env.device)
        estimator = policy.actor if isinstance(policy.actor, Estimator) else None
        self._targets = estimator.targets if estimator else None
        self._ahead = estimator is not None and estimator.looks_ahead
        self.names = self._targets.names if self._targets else ()

    def __call__(self, obs: Obs, reset: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        action, self._state = self._blocks.act(obs, self._state, reset)
        stacked = {group: x.unsqueeze(0) for group, x in obs.items()}
        return action, self._policy.estimates(stacked) if self._targets else {}

    def errors(self, guesses: dict[str, Tensor], now: Obs, after: Obs) -> dict[str, Tensor]:
        """Name -> (N, its width)."""
        if self._targets is None:
            return {}
        truth = self._targets.split(self._targets.take(after if self._ahead else now))
        return {name: guess[0] - truth[name] for name, guess in guesses.items()}


class _Squares:
    """Mean squares of what comes in parts."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, error: Tensor) -> None:
        square = error.double().square().sum()
        self._sums[name] = self._sums[name] + square if name in self._sums else square
        self._counts[name] = self._counts.get(name, 0) + error.numel()

    def roots(self) -> dict[str, float]:
        return {name: float((total / self._counts[name]).sqrt()) for name, total in self._sums.items()}
