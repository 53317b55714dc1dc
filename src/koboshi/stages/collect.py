"""`koboshi collect`: recorded transitions and the truth beside them, from one batch of robots that break."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from koboshi import config, runs
from koboshi.data import Chunk, Column, DatasetCard, Final, LawCard, ShardWriter, transition_columns
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError
from koboshi.faults import FaultSchedule
from koboshi.nets import state_tree
from koboshi.specialists.controller import Controller
from koboshi.stages.progress import progress
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import CollectCfg, required
from koboshi.vec_env import Obs, ObsSpec, Step

LABELS = {
    "severity": "true severity of each joint's fault in force when obs was measured; 0 healthy, 1 dead",
    "kind": "kind of each joint's fault, index into koboshi.faults.KINDS; -1 none",
    "member": "the specialist that acted; -1 healthy policy",
}


def collection(task: TaskCfg) -> CollectCfg:
    """The task's settings of the collection; KoboshiError where it has none."""
    return required(task, "collect", task.collect)


def fault_schedule(task: TaskCfg) -> FaultSchedule | None:
    """What breaks while data are collected: the task's faults, as often and when `collect` says."""
    if task.faults is None:
        return None
    cfg = collection(task)
    return FaultSchedule(faults=task.faults, probability=cfg.probability, onset_s=cfg.onset_s)


def healthy_env_cfg(task: TaskCfg) -> EnvCfg:
    """The task's environment under the commands of recordings, without a curriculum; nothing breaks."""
    command, standing = task.env.command, collection(task).standing_fraction
    if standing is not None:
        command = replace(command, standing_fraction=standing)
    return replace(task.env, command=command, curriculum={}, faults=None)


def collect_env_cfg(task: TaskCfg) -> EnvCfg:
    """The same under the collection's fault schedule."""
    cfg = collection(task)
    length = task.env.episode_length_s if cfg.episode_length_s is None else cfg.episode_length_s
    return replace(healthy_env_cfg(task), num_envs=cfg.num_envs, faults=fault_schedule(task), episode_length_s=length)


def collect(
    task: TaskCfg, controller: Controller, checkpoint: Path, folder: Path, round_: int, env: Env | None = None
) -> Path:
    """Writes a data set into `folder`, or resumes one that a kill cut off."""
    cfg = collection(task)
    env = env or Env(collect_env_cfg(task))
    kind = "healthy" if controller.bank is None else "switched"
    writer = ShardWriter(folder, dataset_card(task, env, checkpoint, kind, round_), resume=True)
    if not writer.complete:
        with torch.no_grad():
            _Collector(env, controller, cfg, round_).run(writer)
    return folder


def dataset_card(task: TaskCfg, env: Env, checkpoint: Path | None, kind: Any, round_: int) -> DatasetCard:
    """What the data set of `env` under a controller from `checkpoint` says about itself."""
    robot, schedule, cfg = env.robot, fault_schedule(task), collection(task)
    for group in cfg.groups:
        if group not in env.obs_spec:
            raise KoboshiError(f"collect.groups names '{group}'; observation groups: {', '.join(env.obs_spec)}")
    layouts = {group: _layout(env, group) for group in cfg.groups if group in env.layouts}
    return DatasetCard(
        robot=robot.name,
        task=task.name,
        command=" ".join(["koboshi", *sys.argv[1:]]),
        commit=runs.git_commit(),
        checkpoint=str(checkpoint),
        checkpoint_sha256=runs.digest(checkpoint) if checkpoint is not None else "",
        seed=cfg.seed + round_,
        control_dt=env.step_dt,
        num_envs=env.num_envs,
        columns=_columns(env, cfg.groups, faulty=schedule is not None),
        layouts=layouts,
        joint_names=list(robot.joint_names),
        controller=kind,
        round=round_,
        faults=config.to_dict(schedule) if schedule is not None else None,
        onset_s=schedule.onset_s if schedule is not None else None,
        candidates=list(task.faults.candidates(env.robot)) if task.faults is not None else [],
        law=law_card(env),
        term_joints={name: list(joints) for name, joints in env.term_joints.items()},
        scaled=_scaled(env, list(layouts)),
        settings={"steps": cfg.steps, "env": config.to_dict(replace(env.cfg, faults=None))},
    )


def _layout(env: Env, group: str) -> list[tuple[str, int, int]]:
    return [(entry.name, entry.start, entry.width) for entry in env.layouts[group]]


def _scaled(env: Env, groups: Sequence[str]) -> dict[str, tuple[float, float | None]]:
    return {f"{group}.{each.name}": each.scaled for group in groups for each in env.layouts[group] if each.scaled}


def _columns(env: Env, groups: Sequence[str], faulty: bool) -> dict[str, Column]:
    """The data set's columns; labels of faults only where something can break."""
    joints = (len(env.robot.joint_names),)
    labels = {"member": Column("int16", (), LABELS["member"])}
    if faulty:
        labels["severity"] = Column("float32", joints, LABELS["severity"])
        labels["kind"] = Column("int8", joints, LABELS["kind"])
    obs = {group: _column_of(env.obs_spec[group]) for group in groups}
    return transition_columns(obs, Column("float32", (env.action_space.dim,), "of the policy, before scale"), labels)


def _column_of(spec: ObsSpec) -> Column:
    dtype: Any = str(spec.dtype).removeprefix("torch.")
    return Column(dtype, spec.shape, "SI units (m/s, rad/s, rad, N·m), as measured, but where the card says `scaled`")


def law_card(env: Env) -> LawCard:
    """The robot's actuators and how the environment turns actions into their set points."""
    law, robot = env.robot.law, env.robot
    return LawCard(
        control=law.control.tolist(),
        position=law.position.tolist(),
        velocity=law.velocity.tolist(),
        effort_limit=law.effort_limit.tolist(),
        action_scale=env.actions.scale.tolist(),
        action_offset=env.actions.offset.tolist(),
        default_joint_pos=robot.default_joint_pos.tolist(),
        torque_lag_s=env.cfg.sim.timestep,
    )


class _Collector:
    """Steps the batch and hands over a chunk at a time; while it steps it reads nothing back from the device."""

    def __init__(self, env: Env, controller: Controller, cfg: CollectCfg, round_: int) -> None:
        self._env, self._controller, self._cfg = env, controller, cfg
        self._obs = env.reset(cfg.seed + round_)
        self._state = controller.initial_state(env.num_envs, env.device)
        self._reset = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        self._episode = torch.arange(env.num_envs, device=env.device)
        self._next_episode = torch.tensor(env.num_envs, device=env.device)
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
        start, rows, finals = self._step, [], []
        for _ in range(min(self._cfg.shard_steps, self._cfg.steps - self._step)):
            row = self._before()
            decision, self._state = self._controller.act(self._obs, self._reset, self._state)
            step = self._env.step(decision.action)
            member = decision.route.member.to(torch.int16)
            rows.append(row | _after(step) | {"action": decision.action.clone(), "member": member})
            finals.append(self._recorded(step.final_obs))
            self._obs, self._reset = step.obs, step.terminated | step.truncated
            self._number_episodes()
            self._step += 1
        self._env.settle()
        columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return Chunk(columns, self._final(columns, finals, start), start)

    def _before(self) -> dict[str, Tensor]:
        """What holds before the step: copies, since the environment may use its tensors again."""
        row = {f"obs.{group}": value for group, value in self._recorded(self._obs).items()}
        row |= {"episode": self._episode, "reset": self._reset}
        if self._env.cfg.faults is not None:
            row |= {"severity": self._env.faults.severity.clone(), "kind": self._env.faults.kind.to(torch.int8)}
        return row

    def _recorded(self, obs: Obs) -> Obs:
        return {group: obs[group].clone() for group in self._cfg.groups}

    def _final(self, columns: dict[str, Tensor], finals: list[Obs], start: int) -> Final:
        """The true next observations where episodes end, and everywhere after the recording's last step."""
        told = columns["terminated"] | columns["truncated"]
        if self._step == self._cfg.steps:
            told[-1] = True
        step, env = told.nonzero(as_tuple=True)
        obs = {group: torch.stack([final[group] for final in finals])[step, env] for group in self._cfg.groups}
        return Final(step + start, env, obs)

    def _number_episodes(self) -> None:
        """Gives environments that begin a new episode the next numbers, in their order."""
        begun = self._reset.long()
        self._episode = torch.where(self._reset, self._next_episode + begun.cumsum(0) - 1, self._episode)
        self._next_episode = self._next_episode + begun.sum()

    def _state_dict(self) -> dict[str, Tensor]:
        state = {"reset": self._reset, "episode": self._episode, "next_episode": self._next_episode}
        state["step"] = torch.tensor(self._step)
        state |= state_tree.flatten(self._state, "controller")
        state |= {f"obs.{group}": x for group, x in self._obs.items()}
        return state | {f"env.{name}": x for name, x in self._env.state_dict().items()}

    def _load_state_dict(self, state: dict[str, Tensor]) -> None:
        device = self._env.device
        self._reset, self._episode = state["reset"].to(device), state["episode"].to(device)
        self._next_episode, self._step = state["next_episode"].to(device), int(state["step"])
        self._state = state_tree.unflatten(self._state, state, "controller")
        self._obs = {k.removeprefix("obs."): v.to(device) for k, v in state.items() if k.startswith("obs.")}
        self._env.load_state_dict({k.removeprefix("env."): v for k, v in state.items() if k.startswith("env.")})


def _after(step: Step) -> dict[str, Tensor]:
    valid = step.extras.get("valid")
    return {
        "reward": step.reward.clone(),
        "terminated": step.terminated.clone(),
        "truncated": step.truncated.clone(),
        "valid": torch.ones_like(step.terminated) if valid is None else valid.clone(),
    }
