"""How fast each part is. Every pair that is compared is timed turn by turn in one run; medians are quoted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from koboshi.algos.ppo import PPO
from koboshi.algos.ppo.cfg import PPOCfg
from koboshi.algos.ppo.ppo import MirrorMap
from koboshi.algos.ppo.rollout import Rollout
from koboshi.bench.rollout import scenario_cfg
from koboshi.envs import Env, EnvCfg
from koboshi.faults import Scenarios
from koboshi.sim import make_backend
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import DetectorRouter


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _by_turns(works: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of each piece of work, taken in turns so that a noisy moment meets them all."""
    for work in works:
        work()
    turns = [[_seconds(work) for work in works] for _ in range(repeats)]
    return [list(column) for column in zip(*turns, strict=True)]


def env_speed(cfg: EnvCfg, repeats: int = 60) -> dict[str, float]:
    """`env_ratio`: environment steps/s, all terms on, over raw mjbatch steps/s, same model, 1024 environments.

    An environment that ended in a step was reset in it; its physics are stepped again as if it had not been.
    """
    env = Env(replace(cfg, num_envs=1024))
    env.reset(0)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        env.step(torch.rand(1024, env.action_space.dim, generator=generator) * 0.4 - 0.2)

    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        before = env.backend.snapshot()
        seconds[0].append(_seconds(step))
        after, held = env.backend.snapshot(), env.ctrl.clone()
        # The very physics of that step again: the same states, contacts and targets. Twice, the second one timed,
        # since writing the states anew leaves the first with cold caches.
        for _ in range(2):
            env.backend.restore(before)
            env.ctrl.copy_(held)
            again = _seconds(lambda: env.backend.step(cfg.decimation))
        seconds[1].append(again)
        env.backend.restore(after)
    whole, bare = (1024 / median(s[len(s) // 10 :]) for s in seconds)
    ratio = median(r / e for e, r in zip(*seconds, strict=True))
    return {"env_steps_per_s": whole, "raw_steps_per_s": bare, "env_ratio": ratio}


def warp_speed(cfg: EnvCfg, env_steps_per_s: float, num_envs: int = 256, repeats: int = 5) -> dict[str, float]:
    """`warp_ratio`: environment steps/s over MuJoCo Warp's control steps/s on the same CPU."""
    env = Env(replace(cfg, num_envs=num_envs))
    env.reset(0)
    warp = make_backend("warp", env.model, num_envs, "cpu")
    for field in ("qpos", "qvel", "ctrl"):
        warp.read(field).copy_(env.backend.read(field))
    seconds = _by_turns([lambda: warp.step(cfg.decimation)], repeats)[0]
    rate = num_envs / median(seconds)
    return {"warp_steps_per_s": rate, "warp_ratio": env_steps_per_s / rate}


def ppo_speed(cfg: EnvCfg, agent: PPOCfg, iterations: int = 8) -> dict[str, float]:
    """`ppo_steps_per_s`: control steps/s of collecting and learning together, mirror loss included."""
    env = Env(cfg)
    mirror = MirrorMap(*env.mirror("policy"), *env.mirror("action"))
    learner = PPO(env, agent, mirror=mirror)
    seconds = _by_turns([learner.iterate], iterations)[0]
    return {"ppo_steps_per_s": env.num_envs * agent.trainer.rollout / median(seconds)}


class _Sizes:
    """An environment's shape without the environment: `update` needs no more."""

    def __init__(self, env: Env, num_envs: int) -> None:
        self.num_envs, self.device, self.action_space = num_envs, env.device, env.action_space
        self.obs_dims = env.obs_dims


def stack_speed(cfg: EnvCfg, agent: PPOCfg, members: int = 17, repeats: int = 7) -> dict[str, float]:
    """`stack_ratio`: seconds to update 17 specialists over seconds to update one policy, same samples in all."""
    env = Env(replace(cfg, num_envs=1))
    num_envs = members * 64
    sizes: Any = _Sizes(env, num_envs)
    rollout = _random_rollout(sizes, agent.trainer.rollout)
    many, one = (PPO(sizes, agent, members=k) for k in (members, 1))
    stacked, single = _by_turns([lambda: many.update(rollout), lambda: one.update(rollout)], repeats)
    ratio = median(a / b for a, b in zip(stacked, single, strict=True))
    return {"stack_ratio": ratio, "update_seconds_17": median(stacked), "update_seconds_1": median(single)}


def _random_rollout(env: Any, steps: int) -> Rollout:
    generator = torch.Generator().manual_seed(0)
    n, dims = env.num_envs, env.obs_dims

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    never = torch.zeros(steps, n, dtype=torch.bool)
    return Rollout(
        normal(steps, n, dims["policy"]),
        normal(steps, n, dims["critic"]),
        normal(steps, n, env.action_space.dim),
        normal(steps, n),
        never,
        never,
        ~never,
        last_critic_obs=normal(n, dims["critic"]),
        cut=[],
    )


def controller_speed(
    cfg: EnvCfg, controller: Controller, scenarios: Scenarios, steps: int = 600, repeats: int = 3
) -> dict[str, float]:
    """`controller_us`: detector and router for one robot, one step, one core, µs (median over a walk with a fault).

    `stream_difference`: the largest difference between the probabilities of that walk, streamed and batched.
    """
    router = controller.router
    assert isinstance(router, DetectorRouter), "only a detector's router is timed"
    rows = _walk(cfg, controller, scenarios, steps)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds, streamed = _streamed(router, rows, repeats)
    finally:
        torch.set_num_threads(threads)
    obs, reset = (torch.stack(column) for column in zip(*rows, strict=True))
    with torch.inference_mode():
        batched = router.detector(obs, reset, router.detector.initial(1))[0].sigmoid()
    return {"controller_us": median(seconds) * 1e6, "stream_difference": float((batched - streamed).abs().max())}


def _walk(
    cfg: EnvCfg, controller: Controller, scenarios: Scenarios, steps: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the detector of one robot saw in the first scenario: (1, D) senses and (1,) resets, a step each."""
    first = replace(scenarios, episodes=scenarios.episodes[:1])
    env = Env(scenario_cfg(cfg, first))
    obs, state, reset = env.reset(first.seed), controller.initial_state(1), torch.ones(1, dtype=torch.bool)
    rows = []
    for _ in range(steps):
        rows.append((obs["detector"], reset))
        decision, state = controller.act(obs, reset, state)
        step = env.step(decision.action)
        obs, reset = step.obs, step.terminated
    return rows


def _streamed(
    router: DetectorRouter, rows: list[tuple[torch.Tensor, torch.Tensor]], repeats: int
) -> tuple[list[float], torch.Tensor]:
    """Seconds of each step, over all repeats, and (T, 1, J) probabilities."""
    seconds: list[float] = []
    for _ in range(repeats):
        state, probabilities = router.initial_state(1), []
        for obs, reset in rows:
            began = time.perf_counter()
            route, state = router.route({"detector": obs}, reset, state)
            seconds.append(time.perf_counter() - began)
            probabilities.append(route.probability)
    return seconds, torch.stack(probabilities)
