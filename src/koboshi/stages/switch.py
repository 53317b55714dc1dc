"""`koboshi switch`: when and how a controller switches, chosen on robots that break as in training."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from koboshi import runs
from koboshi.bench.detection import alarms_of_settings, delays_of_setting, healthy_steps
from koboshi.detect.alarms import AlarmCfg
from koboshi.detect.calibration import CALIBRATION_THRESHOLDS, PERSISTENCES, capped, quiet_settings, with_threshold
from koboshi.detect.metrics import WINDOW_S
from koboshi.envs import Env, EnvCfg
from koboshi.faults import sweep
from koboshi.specialists.controller import Controller
from koboshi.specialists.storage import StoredController, save_switch
from koboshi.specialists.switching import SwitchCfg
from koboshi.stages.collect import fault_schedule, healthy_env_cfg
from koboshi.stages.evaluate import load
from koboshi.stages.progress import progress, watched_rollout
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import SwitchStageCfg, required

ROBOTS = 512
"""That walk while false alarms are counted."""
ALARM = ("threshold", "persistence", "sure_threshold", "sure_persistence", "release_steps")
"""Settings of the alarm that the table shows."""
CLEARLY = 2.0
"""Standard errors of the paired difference that a setting is to be better by."""


def sweep_env_cfg(task: TaskCfg, cfg: SwitchStageCfg) -> EnvCfg:
    """The worlds, commands and faults of training, one episode a robot."""
    schedule = fault_schedule(task)
    return replace(
        task.env,
        num_envs=cfg.num_envs,
        faults=schedule if schedule is None else replace(schedule, onset_s=cfg.onset_s),
        curriculum={},
        random_initial_length=False,
        episode_length_s=cfg.seconds,
    )


def choose_alarm(task: TaskCfg, stored: StoredController) -> AlarmCfg:
    """Thresholds and persistences: of the settings that keep to `detector`'s rate of false alarms while robots that are
    well walk, alone or in twos, the one that notices soonest.

    Hours of walking cost less than hours of recording, so what is rare need not be guessed from a few of them. Delays
    are those of robots that break in training's worlds; above 1 s, and a miss, count 1 s.
    """
    cfg, stage = required(task, "switch", task.switch), required(task, "detector", task.detector)
    settings = [with_threshold(stored.alarm, t, p) for p in PERSISTENCES for t in CALIBRATION_THRESHOLDS]
    steps = healthy_steps(cfg.healthy_hours, task.env.step_dt, ROBOTS)
    with progress("false alarms of each setting", steps * ROBOTS) as update:
        counts = alarms_of_settings(
            healthy_env_cfg(task), stored.learned(), settings, cfg.healthy_hours, ROBOTS, cfg.seed,
            lambda t: update(t * ROBOTS),
        )  # fmt: skip
    # Of pairs some may be kept for the benchmark.
    faults = required(task, "faults", task.faults).one_at_a_time()
    joints = faults.candidates(stored.robot)
    scenarios = sweep(
        stored.robot, joints, -(-cfg.num_envs // len(joints)), cfg.seed, faults=faults, onset_s=cfg.onset_s
    )
    recording = watched_rollout("delays", task, stored.learned(), scenarios, 2 * WINDOW_S, detail=True)
    tried = quiet_settings(settings, counts, stage.false_alarms_per_hour)
    return min(tried, key=lambda setting: float(capped(delays_of_setting(recording, setting)).mean()))


def choose(task: TaskCfg, stored: StoredController) -> tuple[AlarmCfg, SwitchCfg, list[dict[str, Any]]]:
    """The settings of alarms and switch, and what each setting that was tried reached.

    One setting after the other, the values of `task.switch`, the others as they were chosen so far; a value takes
    the place of the one before it where its mean reward is higher by `CLEARLY` standard errors.
    """
    cfg = required(task, "switch", task.switch)
    tried = [(name, value) for name in ("release_steps", "dwell_steps", "blend_steps") for value in getattr(cfg, name)]
    env_cfg, switch = sweep_env_cfg(task, cfg), stored.switch
    alarm = choose_alarm(task, stored) if cfg.healthy_hours else stored.alarm
    table: list[dict[str, Any]] = []
    with progress("choose the switch", (len(tried) + 1) * cfg.num_envs, unit="robots") as update:
        best, falls = rewards(env_cfg, stored.switched(stored.bank, alarm, switch), cfg.seed)
        table.append(_row(alarm, switch, best, falls, chosen=True))
        for done, (name, value) in enumerate(tried, start=1):
            update(done * cfg.num_envs)
            other = _with(alarm, switch, name, value)
            if other == (alarm, switch):
                continue
            found, falls = rewards(env_cfg, stored.switched(stored.bank, *other), cfg.seed)
            better = clearly_better(found, best)
            table.append(_row(*other, found, falls, chosen=better))
            if better:
                (alarm, switch), best = other, found
        update((len(tried) + 1) * cfg.num_envs)
    return alarm, switch, table


def _with(alarm: AlarmCfg, switch: SwitchCfg, name: str, value: int) -> tuple[AlarmCfg, SwitchCfg]:
    if name in {field.name for field in fields(AlarmCfg)}:
        return replace(alarm, **{name: value}), switch
    return alarm, replace(switch, **{name: value})


def clearly_better(one: Tensor, other: Tensor) -> bool:
    """Whether the mean of (N,) `one` is above that of `other` by more than chance, robot by robot."""
    difference = one - other
    error = difference.std() / len(difference) ** 0.5
    return bool(difference.mean() > CLEARLY * error)


def _row(alarm: AlarmCfg, switch: SwitchCfg, reward: Tensor, falls: int, chosen: bool) -> dict[str, Any]:
    setting = {name: getattr(alarm, name) for name in ALARM} | asdict(switch)
    return setting | {"reward": float(reward.mean()), "fell": falls / len(reward), "taken": chosen}


@torch.no_grad()
def rewards(cfg: EnvCfg, controller: Controller, seed: int) -> tuple[Tensor, int]:
    """(N,) each robot's reward a second over one episode, nothing after a fall; and how many fell."""
    env = Env(cfg)
    obs, state = env.reset(seed), controller.initial_state(env.num_envs, env.device)
    reset = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    up = torch.ones(env.num_envs, device=env.device)
    total, steps = torch.zeros_like(up), round(cfg.episode_length_s / env.step_dt)
    for _ in range(steps):
        decision, state = controller.act(obs, reset, state)
        step = env.step(decision.action)
        total += up * step.reward
        up *= ~step.terminated
        obs, reset = step.obs, step.terminated | step.truncated
    env.settle()
    return total.cpu() / cfg.episode_length_s, round(env.num_envs - float(up.sum()))


def switch(task: TaskCfg, path: Path, target: Path) -> list[dict[str, Any]]:
    """Writes the controller of `path` with the settings that were chosen to `target`, and the table beside it."""
    stored = load(path, task)
    alarm, chosen, table = choose(task, stored)
    save_switch(path, target, alarm, chosen)
    runs.write_json(target.with_name(f"{target.stem}-switch.json"), table)
    return table
