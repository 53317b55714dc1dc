"""`koboshi list faults`: each kind's doing at one joint of the shipped robot that walks, as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from koboshi import robots
from koboshi.bench.rollout import scenario_cfg
from koboshi.bench.worlds import NOMINAL
from koboshi.envs import Env, EnvCfg
from koboshi.faults import KINDS, Fault, Scenario, Scenarios, can_have
from koboshi.robots import Robot
from koboshi.specialists.controller import Controller
from koboshi.stages.play import shipped_walker
from koboshi.tasks import TaskCfg
from koboshi.view import plots
from koboshi.view.plots import FaultTrace

PICTURE = "faults.png"
COMMAND = (0.8, 0.0, 0.0)
SEVERITIES = (0.5, 1.0)
ONSET_S, BEFORE_S, AFTER_S = 2.0, 0.3, 0.7


def picture(task: TaskCfg, joint: str | None, folder: Path) -> Path:
    """Draws `joint` (default: the first knee, else the first joint that may fail) under each kind; says where.

    Its angle and torque, true and as sensors show them, half and whole, beside a twin that stays well. The healthy
    policy walks on, for nobody switches. KoboshiError where the task ships no controller.
    """
    robot = robots.find(task.env.robot)
    name = _a_knee(robot) if joint is None else robot.joint_names[robot.joint_id(joint)]
    kinds = [kind for kind in KINDS if can_have(robot, name, kind)]
    faults = [Fault(name, kind, level, ONSET_S) for kind in kinds for level in SEVERITIES]
    episodes = [Scenario((), COMMAND, ONSET_S), *(Scenario((fault,), COMMAND, ONSET_S) for fault in faults)]
    cfg = _alike(task.env, Scenarios(robot.name, 1, tuple(episodes)))
    well, *broken = _traces(Env(cfg), shipped_walker(task), robot.joint_id(name))
    pairs = {kind: dict(zip(SEVERITIES, broken[i * 2 : i * 2 + 2], strict=True)) for i, kind in enumerate(kinds)}
    path = folder / PICTURE
    plots.fault_traces(f"{name} of {robot.name}, walking at {COMMAND[0]} m/s", well, pairs, path)
    return path


def _a_knee(robot: Robot) -> str:
    found = [name for name in robot.fault_candidates if "knee" in name or "calf" in name]
    return (found or list(robot.fault_candidates))[0]


def _alike(cfg: EnvCfg, scenarios: Scenarios) -> EnvCfg:
    """All start in the same pose of the nominal world and see no noise, so that what differs is the fault; nobody's
    episode ends."""
    quiet = {name: replace(group, noise=False) for name, group in cfg.observations.items()}
    return replace(scenario_cfg(cfg, scenarios, NOMINAL), events={}, terminations={}, observations=quiet)


@torch.no_grad()
def _traces(env: Env, controller: Controller, joint: int) -> list[FaultTrace]:
    """One for each environment, from a little before the onset on."""
    obs = env.reset(1)
    state = controller.initial_state(env.num_envs, env.device)
    reset = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    rows: list[Tensor] = []
    first, last = (round(t / env.step_dt) for t in (ONSET_S - BEFORE_S, ONSET_S + AFTER_S))
    for t in range(last):
        decision, state = controller.act(obs, reset, state)
        obs, reset = env.step(decision.action).obs, torch.zeros_like(reset)
        if t >= first:
            angle, torque = env.state.joint_pos, env.state.joint_torque
            seen = (angle, env.faults.sense(angle), torque, env.faults.sense_torque(torque))
            rows.append(torch.stack([each[:, joint] for each in seen], dim=-1).cpu())
    # Row t is after step t; the fault begins with the step that starts at the onset.
    time = (torch.arange(first, last) + 1) * env.step_dt - ONSET_S
    every = torch.stack(rows, dim=1).double().numpy()
    return [FaultTrace(time.double().numpy(), *each.T) for each in every]
