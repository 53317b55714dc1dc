"""`koboshi bench speed` and `koboshi bench gpu`: how fast everything is, here and on a CUDA machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from koboshi import config, plugins, runs
from koboshi.algos.ppo import PPOCfg
from koboshi.bench import gpu as on_gpu
from koboshi.bench import rsl_rl, speed
from koboshi.robots import find
from koboshi.sim import warp_installed
from koboshi.specialists.assignment import assign
from koboshi.stages.pipeline import Pipeline
from koboshi.stages.play import demo_scenarios, shipped, shipping
from koboshi.stages.progress import console, json_safe
from koboshi.tasks import TaskCfg, make_task

PIPELINE_ENVS = 4096
"""Environments of the pipeline on a GPU."""
ENVS_A_MEMBER = 256


def bench(task: TaskCfg, folder: Path, warp: bool = True) -> dict[str, Any]:
    """Measures one thing after the other; writes `speed.json`. What the task or the machine lacks is left out."""
    figures: dict[str, Any] = {
        "task": task.name, "commit": runs.git_commit(), "cpus": os.cpu_count(), "machine": platform.machine(),
    }  # fmt: skip

    def add(part: dict[str, float]) -> None:
        figures.update(part)
        runs.write_json(folder / "speed.json", figures)  # what comes later may fail
        console.print("  ".join(f"{k} {v:,.4g}" for k, v in part.items()), highlight=False)

    add(speed.env_speed(task.env))
    if warp and not warp_installed():
        console.print("MuJoCo Warp is not installed (pip install 'koboshi[gpu]'): not compared", highlight=False)
    elif warp:
        add(speed.warp_speed(task.env, figures["env_steps_per_s"]))
    add(speed.ppo_speed(task.env, task.agent))
    if rsl_rl.installed() and isinstance(task.agent, PPOCfg):
        add(speed.rsl_rl_speed(task.env, task.agent))
    elif isinstance(task.agent, PPOCfg):
        console.print("rsl_rl is not installed (pip install 'koboshi[bench]'): not compared", highlight=False)
    add(speed.slowdown(task.env, task.agent))
    if task.specialists is not None:
        add(speed.stack_speed(task.env, task.specialists.agent))
    if task.name in shipping():
        add(speed.controller_speed(task.env, shipped(task).learned(), demo_scenarios(task)))
    return figures


def gpu(
    name: str,
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    device: str | None = None,
    sizes: Sequence[int] = on_gpu.SIZES,
) -> dict[str, Any]:
    """Contract, speeds and the whole pipeline on a CUDA machine; writes `gpu.json`, each part as it is done.

    KoboshiError where there is no CUDA device. `overrides` are further settings of the task; `device` names another
    one, for instance MuJoCo Warp's "cpu".
    """
    device = device or on_gpu.cuda_device()
    task = config.override(make_task(name), list(overrides))
    agent = replace(task.agent, trainer=replace(task.agent.trainer, device=device))
    settings = [*pipeline_overrides(task, device), *overrides]
    parts = {"contract": on_gpu.Part(on_gpu.contract_part, (device,))}
    for size in sizes:
        cfg = on_gpu.on_device(task.env, device, size)
        parts[f"environment {size}"] = on_gpu.Part(on_gpu.env_part, (cfg,))
        parts[f"ppo {size}"] = on_gpu.Part(on_gpu.ppo_part, (cfg, agent))
    parts["pipeline"] = on_gpu.Part(pipeline_part, (name, settings, folder))
    report = {"task": name, "commit": runs.git_commit(), "machine": on_gpu.machine(device), "overrides": settings}
    outside = partial(plugins.load, plugins.named())
    on_gpu.run_parts(report, parts, folder / "gpu.json", lambda line: console.print(line, highlight=False), outside)
    return report


def pipeline_overrides(task: TaskCfg, device: str) -> list[str]:
    """Physics and learning on the device, in large batches."""
    settings = [
        "env.sim.backend=warp", f"env.sim.device={device}", f"env.num_envs={PIPELINE_ENVS}",
        f"agent.trainer.device={device}",
    ]  # fmt: skip
    if task.specialists is not None and task.faults is not None and task.collect is not None:
        robot = find(task.env.robot)
        members = len(assign(robot, task.specialists.sharing, task.faults.candidates(robot)).members)
        settings += [
            f"specialists.agent.trainer.device={device}", f"specialists.num_envs={members * ENVS_A_MEMBER}",
            f"collect.num_envs={PIPELINE_ENVS}", f"detector.training.device={device}",
        ]  # fmt: skip
    return settings


def pipeline_part(name: str, overrides: list[str], folder: Path) -> dict[str, Any]:
    """The whole pipeline: each controller's survival and tracking, and the stages' figures."""
    pipeline = Pipeline(config.override(make_task(name), overrides), folder, "gpu", overrides)
    metrics = pipeline.run()
    keys = ("survival_mean", "survival_worst", "vx_rmse", "vy_rmse", "yaw_rmse", "delay_ms_median")
    figures = {c: {k: found.get(k) for k in keys} for c, found in metrics["controllers"].items()}
    return json_safe({"controllers": figures, "stages": pipeline.done, "folder": str(pipeline.folder)})
