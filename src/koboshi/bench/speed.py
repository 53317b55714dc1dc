"""How fast each part is. Every pair that is compared is timed turn by turn in one run; medians are quoted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from koboshi.algos.learner import make_learner
from koboshi.algos.ppo import PPO
from koboshi.algos.ppo.cfg import PPOCfg
from koboshi.bench import rsl_rl
from koboshi.bench.rollout import scenario_cfg
from koboshi.envs import Env, EnvCfg
from koboshi.faults import Scenarios
from koboshi.sim import make_backend
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import DetectorRouter
from koboshi.vec_env import ActionSpace, Obs, ObsSpec, Step

GRU_HIDDEN = 64
"""Width of the cell that a controller's step is compared with; its input is what the detector hears."""


def seconds_of(work: Callable[[], object]) -> float:
    """Wall seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def by_turns(works: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of each piece of work, taken in turns so that a noisy moment meets them all."""
    for work in works:
        work()
    turns = [[seconds_of(work) for work in works] for _ in range(repeats)]
    return [list(column) for column in zip(*turns, strict=True)]


def _ratio(above: list[float], below: list[float]) -> float:
    """The median of the turns' ratios."""
    return median(a / b for a, b in zip(above, below, strict=True))


def _physics_again(env: Env, before: Tensor, held: Tensor) -> float:
    """Seconds of one control step of bare physics from `before` (a snapshot) under the controls `held`.

    Stepped twice, the second one timed, since writing the states anew leaves the first with cold caches.
    """
    again = 0.0
    for _ in range(2):
        env.backend.restore(before)
        env.ctrl.copy_(held)
        again = seconds_of(lambda: env.backend.step(env.cfg.decimation))
    return again


def env_speed(cfg: EnvCfg, repeats: int = 60, num_envs: int = 1024) -> dict[str, float]:
    """`env_ratio`: environment steps/s, all terms on, over raw mjbatch steps/s, same model.

    An environment that ended in a step was reset in it; its physics are stepped again as if it had not been.
    """
    env = Env(replace(cfg, num_envs=num_envs))
    env.reset(0)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        env.step(torch.rand(num_envs, env.action_space.dim, generator=generator) * 0.4 - 0.2)

    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        before = env.backend.snapshot()
        seconds[0].append(seconds_of(step))
        after, held = env.backend.snapshot(), env.ctrl.clone()
        seconds[1].append(_physics_again(env, before, held))
        env.backend.restore(after)
    whole, bare = (num_envs / median(s[len(s) // 10 :]) for s in seconds)
    return {"env_steps_per_s": whole, "raw_steps_per_s": bare, "env_ratio": _ratio(seconds[1], seconds[0])}


def warp_speed(cfg: EnvCfg, env_steps_per_s: float, num_envs: int = 256, repeats: int = 5) -> dict[str, float]:
    """`warp_ratio`: environment steps/s over MuJoCo Warp's control steps/s on the same CPU."""
    env = Env(replace(cfg, num_envs=num_envs))
    env.reset(0)
    warp = make_backend("warp", env.model, num_envs, "cpu")
    for field in ("qpos", "qvel", "ctrl"):
        warp.read(field).copy_(env.backend.read(field))
    seconds = by_turns([lambda: warp.step(cfg.decimation)], repeats)[0]
    rate = num_envs / median(seconds)
    return {"warp_steps_per_s": rate, "warp_ratio": env_steps_per_s / rate}


def ppo_speed(cfg: EnvCfg, agent: Any, iterations: int = 8, raw_steps: int = 6) -> dict[str, float]:
    """`ppo_raw_ratio`: control steps/s of collecting and learning together over those of the bare physics.

    In turns: an iteration, then the physics of the states that it came to.
    """
    env = Env(cfg)
    learner, rollout = make_learner(env, agent), agent.trainer.rollout
    learner.iterate()
    whole, bare = [], []
    for _ in range(iterations):
        whole.append(seconds_of(learner.iterate))
        after, held = env.backend.snapshot(), env.ctrl.clone()
        bare.append(rollout * median(_physics_again(env, after, held) for _ in range(raw_steps)))
        env.backend.restore(after)
    return {
        "ppo_steps_per_s": env.num_envs * rollout / median(whole),
        "ppo_raw_ratio": _ratio(bare, whole),
    }


def rsl_rl_speed(cfg: EnvCfg, agent: PPOCfg, iterations: int = 8) -> dict[str, float]:
    """`ppo_rsl_rl_ratio`: control steps/s of our plain PPO over rsl_rl's; same environment, same sizes, in turns."""
    plain = replace(
        agent, mirror_coef=0.0, epochs=rsl_rl.EPOCHS, minibatches=rsl_rl.MINIBATCHES,
        trainer=replace(agent.trainer, rollout=rsl_rl.ROLLOUT),
    )  # fmt: skip
    ours = plain.build(Env(cfg), None)
    theirs, _ = rsl_rl.learner(Env(cfg), cfg.max_episode_length)
    mine, other = by_turns([ours.iterate, theirs], iterations)
    samples = cfg.num_envs * rsl_rl.ROLLOUT
    return {
        "plain_ppo_steps_per_s": samples / median(mine),
        "rsl_rl_steps_per_s": samples / median(other),
        "ppo_rsl_rl_ratio": _ratio(other, mine),
    }


class _Noise:
    """A `VecEnv` of an environment's shape that gives random numbers: learning on it costs what learning costs."""

    def __init__(self, env: Env, num_envs: int) -> None:
        self.num_envs, self.device = num_envs, env.device
        self.action_space: ActionSpace = env.action_space
        self.obs_spec: dict[str, ObsSpec] = dict(env.obs_spec)
        generator = torch.Generator().manual_seed(0)
        shapes = {group: (num_envs, *spec.shape) for group, spec in self.obs_spec.items()}
        self._obs = [{g: torch.randn(s, generator=generator) for g, s in shapes.items()} for _ in range(8)]
        self._reward = torch.randn(8, num_envs, generator=generator)
        self._never = torch.zeros(num_envs, dtype=torch.bool)
        self._step = 0

    def reset(self, seed: int) -> Obs:
        self._step = seed
        return self._obs[seed % 8]

    def step(self, action: Tensor) -> Step:
        self._step += 1
        obs = self._obs[self._step % 8]
        return Step(obs, self._reward[self._step % 8], self._never, self._never, obs, {})

    def pop_log(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


def stack_speed(cfg: EnvCfg, agent: PPOCfg, members: int = 17, repeats: int = 7) -> dict[str, float]:
    """`stack_ratio`: seconds to update 17 specialists over seconds to update one policy, same samples in all."""
    noise = _Noise(Env(replace(cfg, num_envs=1)), members * 64)
    many, one = (PPO(noise, agent, members=k) for k in (members, 1))
    rollouts = many.collect(), one.collect()
    stacked, single = by_turns([lambda: many.update(rollouts[0]), lambda: one.update(rollouts[1])], repeats)
    return {
        "stack_ratio": _ratio(stacked, single),
        "update_seconds_17": median(stacked),
        "update_seconds_1": median(single),
    }


_SPIN = "import os\nos.nice(19)\nprint(flush=True)\nwhile True: pass"


@contextmanager
def busy_core() -> Iterator[int]:
    """Another process, whose id it gives, that keeps one core busy at the lowest priority."""
    busy = subprocess.Popen([sys.executable, "-c", _SPIN], stdout=subprocess.PIPE)
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(busy.pid, {min(os.sched_getaffinity(0))})
        assert busy.stdout is not None
        busy.stdout.readline()  # now it spins
        yield busy.pid
    finally:
        busy.kill()
        busy.communicate()


def slowdown(cfg: EnvCfg, agent: Any, iterations: int = 4) -> dict[str, float]:
    """`slowdown_busy_core`: training steps/s alone over those beside a process that keeps one core busy, in turns."""
    learner = make_learner(Env(cfg), agent)
    learner.iterate()
    alone, beside = [], []
    for _ in range(iterations):
        alone.append(seconds_of(learner.iterate))
        with busy_core():
            beside.append(seconds_of(learner.iterate))
    return {"slowdown_busy_core": _ratio(beside, alone)}


def controller_speed(
    cfg: EnvCfg, controller: Controller, scenarios: Scenarios, steps: int = 600, repeats: int = 3
) -> dict[str, float]:
    """`controller_us`: detector and router for one robot, one step, one core, µs (median over a walk with a fault).

    `controller_gru_ratio`: that over one step of a bare `GRUCell` with a linear layer, in turns on the same core.
    `stream_difference`: the largest difference between the probabilities of that walk, streamed and batched.
    """
    router = controller.router
    assert isinstance(router, DetectorRouter), "only a detector's router is timed"
    rows = _walk(cfg, controller, scenarios, steps)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds, bare, streamed = _streamed(router, rows, repeats)
    finally:
        torch.set_num_threads(threads)
    obs, reset = (torch.stack(column) for column in zip(*rows, strict=True))
    with torch.inference_mode():
        batched = router.detector(obs, reset, router.detector.initial(1))[0].logit.sigmoid()
    return {
        "controller_us": median(seconds) * 1e6,
        "gru_us": median(bare) * 1e6,
        "controller_gru_ratio": median(seconds) / median(bare),
        "stream_difference": float((batched - streamed).abs().max()),
    }


def _walk(cfg: EnvCfg, controller: Controller, scenarios: Scenarios, steps: int) -> list[tuple[Tensor, Tensor]]:
    """What the detector of one robot heard in the first scenario: (1, D) senses and (1,) resets, a step each."""
    first = replace(scenarios, episodes=scenarios.episodes[:1])
    env = Env(scenario_cfg(cfg, first))
    obs, state = env.reset(first.seed), controller.initial_state(1, env.device)
    reset = torch.ones(1, dtype=torch.bool, device=env.device)
    rows = []
    for _ in range(steps):
        rows.append((obs["detector"].clone(), reset.clone()))
        decision, state = controller.act(obs, reset, state)
        step = env.step(decision.action)
        obs, reset = step.obs, step.terminated
    return rows


@torch.inference_mode()
def _streamed(
    router: DetectorRouter, rows: list[tuple[Tensor, Tensor]], repeats: int
) -> tuple[list[float], list[float], Tensor]:
    """Seconds of each step of the router and of the bare cell, over all repeats; (T, 1, J) probabilities."""
    seconds: list[float] = []
    bare: list[float] = []
    probabilities: list[Tensor] = []
    width, device = rows[0][0].shape[1], rows[0][0].device
    cell = nn.GRUCell(width, GRU_HIDDEN).to(device)
    head = nn.Linear(GRU_HIDDEN, len(router.detector.spec.joint_names)).to(device)
    for _ in range(repeats):
        state, hidden = router.initial_state(1, device), torch.zeros(1, GRU_HIDDEN, device=device)
        probabilities = []
        for obs, reset in rows:
            began = time.perf_counter()
            route, state = router.route({"detector": obs}, reset, state)
            between = time.perf_counter()
            hidden = cell(obs, hidden)
            head(hidden)
            seconds.append(between - began)
            bare.append(time.perf_counter() - between)
            probabilities.append(route.belief.probability)
    return seconds, bare, torch.stack(probabilities)
