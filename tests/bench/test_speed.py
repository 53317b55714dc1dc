"""That each benchmark measures something; how much is for `koboshi bench speed` to say."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from koboshi import runs
from koboshi.bench import rsl_rl, speed
from koboshi.envs import Env
from koboshi.stages import speed as stage
from koboshi.stages.evaluate import load
from koboshi.stages.folders import task_of
from koboshi.stages.play import demo_scenarios
from koboshi.tasks import make_task

Positive = Callable[..., bool]


def test_the_environment_against_its_physics(positive: Positive) -> None:
    figures = speed.env_speed(make_task("h1-dead-joint").env, repeats=2, num_envs=8)
    assert positive(figures, "env_steps_per_s", "raw_steps_per_s", "env_ratio")


def test_timing_leaves_the_environment_where_it_was() -> None:
    # Otherwise what is timed next is another walk.
    env = Env(replace(make_task("h1-dead-joint").env, num_envs=2))
    env.reset(0)
    before, held = env.backend.snapshot(), env.ctrl.clone()
    speed._physics_again(env, before, held)
    once = env.backend.snapshot()
    speed._physics_again(env, before, held)
    assert torch.equal(once, env.backend.snapshot()) and not torch.equal(once, before)


def test_learning_and_the_stack(positive: Positive) -> None:
    task = make_task("h1-dead-joint")
    agent = replace(task.agent, trainer=replace(task.agent.trainer, rollout=4))
    small = replace(task.env, num_envs=8)
    assert positive(speed.ppo_speed(small, agent, iterations=1, raw_steps=2), "ppo_steps_per_s", "ppo_raw_ratio")
    figures = speed.stack_speed(task.env, agent, members=2, repeats=1)
    assert positive(figures, "stack_ratio", "update_seconds_17", "update_seconds_1")
    assert positive(speed.slowdown(small, agent, iterations=1), "slowdown_busy_core")


def test_a_busy_core_is_busy_and_then_free() -> None:
    with speed.busy_core() as pid:
        os.kill(pid, 0)
        if hasattr(os, "sched_setaffinity"):
            assert len(os.sched_getaffinity(pid)) == 1
            assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_rsl_rl_beside_ours(positive: Positive) -> None:
    if not rsl_rl.installed():
        pytest.skip("rsl_rl is not installed (extra bench)")
    task = make_task("h1-dead-joint")
    figures = speed.rsl_rl_speed(replace(task.env, num_envs=8), task.agent, iterations=1)
    assert positive(figures, "plain_ppo_steps_per_s", "rsl_rl_steps_per_s", "ppo_rsl_rl_ratio")


def test_the_controller(pipeline: Path) -> None:
    path = pipeline / "controller.safetensors"
    task = task_of(path)
    figures = speed.controller_speed(task.env, load(path, task).learned(), demo_scenarios(task), 200, repeats=1)
    assert figures["controller_us"] > 0 and figures["controller_gru_ratio"] > 0
    assert figures["stream_difference"] <= 1e-5


def test_all_of_it_lands_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, koboshi: Callable[..., object]
) -> None:
    parts = {
        "env_speed": {"env_steps_per_s": 2.0, "env_ratio": 0.9},
        "warp_speed": {"warp_ratio": 11.0},
        "ppo_speed": {"ppo_raw_ratio": 0.5},
        "rsl_rl_speed": {"ppo_rsl_rl_ratio": 1.2},
        "slowdown": {"slowdown_busy_core": 1.9},
        "stack_speed": {"stack_ratio": 1.1},
        "controller_speed": {"controller_gru_ratio": 2.9},
    }
    for name, figures in parts.items():
        monkeypatch.setattr(stage.speed, name, lambda *_, figures=figures: figures)
    monkeypatch.setattr(stage.rsl_rl, "installed", lambda: True)
    monkeypatch.setattr(stage, "shipping", lambda: ["h1-walk"])
    monkeypatch.setattr(stage, "shipped", lambda task: SimpleNamespace(learned=lambda: None))
    assert koboshi("bench", "speed", "--out", tmp_path)[0] == 0  # type: ignore[index]
    written = runs.read_json(tmp_path / "speed.json")
    for figures in parts.values():
        assert figures.items() <= written.items()
    monkeypatch.setattr(stage.rsl_rl, "installed", lambda: False)
    monkeypatch.setattr(stage, "warp_installed", lambda: False)
    assert koboshi("bench", "speed", "--out", tmp_path / "bare")[0] == 0  # type: ignore[index]
    assert "warp_ratio" not in runs.read_json(tmp_path / "bare/speed.json")
    assert koboshi("bench", "speed", "--no-warp", "--out", tmp_path / "cpu")[0] == 0  # type: ignore[index]
    assert not {"warp_ratio", "ppo_rsl_rl_ratio"} & set(runs.read_json(tmp_path / "cpu/speed.json"))
