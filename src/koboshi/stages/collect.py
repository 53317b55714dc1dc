"""`koboshi collect`: the detector's observations and the truth beside them, from one batch of robots that break."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from koboshi import config, runs
from koboshi.data import Chunk, DatasetCard, PdCard, ShardWriter
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events
from koboshi.specialists import carry
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import NOBODY
from koboshi.specialists.storage import layouts_of
from koboshi.stages.progress import progress
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import CollectCfg


def collect_env_cfg(task: TaskCfg) -> EnvCfg:
    """The task with its fault event set to the collection's schedule."""
    fault = EventTerm(events.change_joint_torque, params={"schedule": task.collect.schedule})
    return replace(task.env, num_envs=task.collect.num_envs, events=task.env.events | {"change_joint_torque": fault})


def collect(
    task: TaskCfg, controller: Controller, checkpoint: Path, folder: Path, round_: int, env: Env | None = None
) -> Path:
    """Writes a data set into `folder`, or goes on with one that a kill cut off."""
    cfg = task.collect
    env = env or Env(collect_env_cfg(task))
    kind = "healthy" if controller.bank is None else "switched"
    writer = ShardWriter(folder, dataset_card(task, env, checkpoint, kind, round_), resume=True)
    if not writer.complete:
        with torch.no_grad():
            _Collector(env, controller, cfg, round_).run(writer)
    return folder


def dataset_card(task: TaskCfg, env: Env, checkpoint: Path | None, kind: Any, round_: int) -> DatasetCard:
    """What the data set of `env` under a controller from `checkpoint` says about itself."""
    robot, schedule = env.robot, task.collect.schedule
    pd = PdCard(
        env.cfg.action.scale,
        robot.stiffness.tolist(),
        robot.damping.tolist(),
        robot.effort_limit.tolist(),
        robot.default_joint_pos.tolist(),
        env.cfg.sim.timestep,
    )
    return DatasetCard(
        robot=robot.name,
        task=task.name,
        command=" ".join(["koboshi", *sys.argv[1:]]),
        commit=runs.git_commit(),
        checkpoint=str(checkpoint),
        checkpoint_sha256=runs.digest(checkpoint) if checkpoint is not None else "",
        seed=task.collect.seed + round_,
        faults=config.to_dict(schedule),
        onset_s=schedule.onset_s,
        control_dt=env.step_dt,
        layout=[(name, start, width) for name, start, width in layouts_of(env)["detector"]],
        joint_names=list(robot.joint_names),
        candidates=list(schedule.joints or robot.fault_candidates),
        pd=pd,
        num_envs=env.num_envs,
        controller=kind,
        round=round_,
    )


class _Collector:
    """Steps the batch and hands over a chunk at a time."""

    def __init__(self, env: Env, controller: Controller, cfg: CollectCfg, round_: int) -> None:
        self._env, self._controller, self._cfg = env, controller, cfg
        self._obs = env.reset(cfg.seed + round_)
        self._state = controller.initial_state(env.num_envs, env.device)
        self._reset = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        self._episode = torch.arange(env.num_envs)
        self._next_episode = env.num_envs
        self._step = 0

    def run(self, writer: ShardWriter) -> None:
        saved = writer.load_state()
        if saved is not None:
            self._load_state_dict(saved)
        total = self._cfg.steps * self._env.num_envs
        title = f"collect ({writer.card.controller})"
        with progress(title, total, start=self._step * self._env.num_envs) as update:
            while self._step < self._cfg.steps:
                writer.append(self._chunk())
                writer.save_state(self._state_dict())
                update(self._step * self._env.num_envs)
        writer.finish()

    def _chunk(self) -> Chunk:
        start, rows = self._step, []
        for _ in range(min(self._cfg.shard_steps, self._cfg.steps - self._step)):
            decision, self._state = self._controller.act(self._obs, self._reset, self._state)
            member = self._member(decision.route.joint)
            rows.append((self._obs["detector"], self._obs["fault"].clone(), self._episode, self._reset, member))
            step = self._env.step(decision.action)
            self._obs, self._reset = step.obs, step.terminated | step.truncated
            self._number_episodes()
            self._step += 1
        obs, severity, episode, reset, member = (torch.stack(column) for column in zip(*rows, strict=True))
        return Chunk(obs, severity, episode, reset, member, start)

    def _member(self, joint: Tensor) -> Tensor:
        bank = self._controller.bank
        return torch.full_like(joint, NOBODY) if bank is None else bank.member_of[joint]

    def _number_episodes(self) -> None:
        count = int(self._reset.sum())
        if count:
            self._episode = self._episode.clone()
            self._episode[self._reset] = torch.arange(self._next_episode, self._next_episode + count)
            self._next_episode += count

    def _state_dict(self) -> dict[str, Tensor]:
        state = {"reset": self._reset, "episode": self._episode}
        state["counters"] = torch.tensor([self._step, self._next_episode])
        state |= carry.flatten(self._state)
        state |= {f"obs.{group}": x for group, x in self._obs.items()}
        return state | {f"env.{name}": x for name, x in self._env.state_dict().items()}

    def _load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._reset, self._episode = state["reset"], state["episode"]
        self._step, self._next_episode = state["counters"].tolist()
        self._state = carry.unflatten(self._state, state)
        self._obs = {k.removeprefix("obs."): v for k, v in state.items() if k.startswith("obs.")}
        self._env.load_state_dict({k.removeprefix("env."): v for k, v in state.items() if k.startswith("env.")})
