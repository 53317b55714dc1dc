"""Other libraries' PPO beside ours, in the same environment and of the same sizes: how long until a policy walks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from koboshi import config, robots
from koboshi.adapters.to_skrl import SkrlEnv
from koboshi.algos.learner import TrainerCfg, make_learner
from koboshi.algos.ppo import NetworkCfg, PPOCfg
from koboshi.bench import rsl_rl, skrl_ppo
from koboshi.bench.metrics import controller_metrics
from koboshi.bench.rollout import rollout
from koboshi.bench.speed import seconds_of
from koboshi.envs import Env
from koboshi.errors import KoboshiError, unknown
from koboshi.faults import sweep
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter
from koboshi.tasks import TaskCfg
from koboshi.vec_env import Obs, Policy, State

PEERS = ("koboshi", "koboshi plain", "rsl_rl", "skrl")
"""`koboshi` learns as the task says, mirrored where it can be; `koboshi plain` without the mirror, as the others do."""
VX_RMSE = 0.1
"""m/s; a policy walks where it is not worse and nobody falls."""
ROBOTS, SECONDS, SEED = 64, 8.0, 21
"""Of the test."""
_INSTALLED = {"rsl_rl": rsl_rl.installed, "skrl": skrl_ppo.installed}


class Peer(NamedTuple):
    """`iterate`: one iteration. `policy`: its most likely actions, as it has learnt by then."""

    iterate: Callable[[], object]
    policy: Callable[[], Policy]


class _Feedforward:
    """A function of what the policy sees as a `Policy`."""

    def __init__(self, act: Callable[[Obs], Tensor]) -> None:
        self._act = act

    def initial_state(self, num_envs: int, device: torch.device) -> State:
        return {}

    def act(self, obs: Obs, state: State, reset: Tensor) -> tuple[Tensor, State]:
        return self._act(obs), state


def check(task: TaskCfg, names: Sequence[str]) -> None:
    """KoboshiError for a name that is none, a library that is missing, and settings that not all peers would have."""
    for name in names:
        if name not in PEERS:
            raise unknown("peer", name, PEERS)
        if name in _INSTALLED and not _INSTALLED[name]():
            raise KoboshiError(f"{name} is not installed: pip install 'koboshi[bench]'")
    _agent(task, 1)


def make_peer(name: str, task: TaskCfg, seed: int) -> Peer:
    """A learner of that name on the task."""
    check(task, [name])
    agent = _agent(task, seed)
    if name.startswith("koboshi"):
        plain = agent if name == "koboshi" else replace(agent, mirror_coef=0.0)
        learner = make_learner(Env(task.env), plain)
        return Peer(learner.iterate, lambda: learner.policy.single())
    env, noise = Env(task.env), agent.network.init_log_std
    if name == "rsl_rl":
        iterate, acts = rsl_rl.learner(env, task.env.max_episode_length, init_log_std=noise, seed=seed)
        return Peer(iterate, lambda: _Feedforward(acts))
    wrapped = SkrlEnv(env, critic="critic" if "critic" in env.obs_spec else None, seed=seed)
    advance, act = skrl_ppo.learner(wrapped, init_log_std=noise, seed=seed)
    return Peer(advance, lambda: _Feedforward(lambda obs: act(obs["policy"])))


def _agent(task: TaskCfg, seed: int) -> PPOCfg:
    """The task's PPO with that seed; KoboshiError where the others, whose settings are PPO's usual ones, differ."""
    agent = task.agent
    if not isinstance(agent, PPOCfg):
        raise KoboshiError(f"peers learn by PPO, and task '{task.name}' by {type(agent).__name__}")
    usual = PPOCfg(
        trainer=replace(agent.trainer, rollout=rsl_rl.ROLLOUT, device=TrainerCfg.device),
        network=NetworkCfg(init_log_std=agent.network.init_log_std),
        mirror_coef=agent.mirror_coef,
    )
    other = config.diff(usual, agent)
    if other:
        raise KoboshiError(f"peers are compared under PPO's usual settings, and these differ: {'; '.join(other)}")
    return replace(agent, trainer=replace(agent.trainer, seed=seed))


def race(
    task: TaskCfg,
    names: Sequence[str],
    seed: int,
    every: int = 5,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Name -> `walks_s`, `walks_steps` (None: not within the task's budget), `steps_per_s` and the `curve` until then.

    Learners take turns, an iteration each, so that a noisy moment meets them all; the test, every so many iterations,
    is not counted.
    """
    check(task, names)
    peers = {name: _Apart(make_peer(name, task, seed), seed) for name in names}
    found: dict[str, dict[str, Any]] = {name: {"seconds": [], "curve": [], "walks_s": None} for name in names}
    trainer = task.agent.trainer
    batch = trainer.rollout * task.env.num_envs
    for iteration in range(1, trainer.iterations + 1):
        running = [name for name in names if found[name]["walks_s"] is None]
        for name in running:
            found[name]["seconds"].append(seconds_of(peers[name].iterate))
            if iteration % every == 0 or iteration == trainer.iterations:
                point = {"steps": iteration * batch, "seconds": sum(found[name]["seconds"])}
                point |= _judge(task, peers[name].policy())
                found[name]["curve"].append(point)
                if _walks(point):
                    found[name]["walks_s"] = point["seconds"]
        if report is not None and running:
            report(iteration, {name: found[name]["curve"][-1]["vx_rmse"] for name in running if found[name]["curve"]})
        if not running:
            break
    return {name: _summary(each, batch) for name, each in found.items()}


class _Apart:
    """A peer that draws from torch's global generator as if it were alone."""

    def __init__(self, peer: Peer, seed: int) -> None:
        self._peer, self.policy = peer, peer.policy
        self._random = torch.Generator().manual_seed(seed).get_state()

    def iterate(self) -> None:
        torch.set_rng_state(self._random)
        self._peer.iterate()
        self._random = torch.get_rng_state()


def _judge(task: TaskCfg, policy: Policy) -> dict[str, float]:
    """The same robots, commands and moments for every learner."""
    robot = robots.find(task.env.robot)
    scenarios = sweep(robot, (None,), ROBOTS, SEED, commands=task.evaluate.commands, onset_s=(0.0, 0.0))
    controller = Controller(policy, None, HealthyRouter(len(robot.joint_names)))
    with torch.no_grad():
        figures = controller_metrics(rollout(task.env, controller, scenarios, SECONDS), SECONDS)
    # Where everybody has fallen at once there is no error to speak of.
    error = figures["vx_rmse"]
    return {"survival": figures["survival_mean"], "vx_rmse": math.inf if error is None else error}


def _walks(point: Mapping[str, float]) -> bool:
    return point["survival"] == 1.0 and point["vx_rmse"] <= VX_RMSE


def _summary(found: Mapping[str, Any], batch: int) -> dict[str, Any]:
    walked = found["walks_s"] is not None
    return {
        "walks_s": found["walks_s"],
        "walks_steps": found["curve"][-1]["steps"] if walked else None,
        "steps_per_s": batch / median(found["seconds"]),
        "curve": [point | {"vx_rmse": _known(point["vx_rmse"])} for point in found["curve"]],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(parts: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name -> over the parts (one a seed): `walks_s`, `walks_steps` of each, and medians of `steps_per_s` and of
    `ratio`, its time over that of `koboshi` in the same race (None: one of them did not race, or never walked)."""
    rows: dict[str, dict[str, list[Any]]] = {}
    for part in parts:
        for name, found in part.items():
            row = rows.setdefault(name, {"walks_s": [], "walks_steps": [], "steps_per_s": [], "ratio": []})
            for key in ("walks_s", "walks_steps", "steps_per_s"):
                row[key].append(found[key])
            times = (found["walks_s"], part["koboshi"]["walks_s"] if "koboshi" in part else None)
            row["ratio"].append(None if None in times else times[0] / times[1])
    return {
        name: row
        | {"steps_per_s": median(row["steps_per_s"]), "ratio": None if None in row["ratio"] else median(row["ratio"])}
        for name, row in rows.items()
    }
