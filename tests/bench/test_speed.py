"""That each benchmark measures something; how much is for `koboshi bench speed` to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from koboshi import runs
from koboshi.bench import speed
from koboshi.robots import UNITREE_H1
from koboshi.stages import speed as stage
from koboshi.stages.play import demo_scenario, shipped
from koboshi.tasks import make_task


def positive(figures: dict[str, float], *keys: str) -> bool:
    return set(figures) == set(keys) and all(value > 0 for value in figures.values())


def test_the_environment_against_its_physics() -> None:
    figures = speed.env_speed(make_task("h1-walk").env, repeats=2)
    assert positive(figures, "env_steps_per_s", "raw_steps_per_s", "env_ratio")


def test_learning_and_the_stack() -> None:
    task = make_task("h1-walk")
    agent = replace(task.agent, trainer=replace(task.agent.trainer, rollout=4))
    assert positive(speed.ppo_speed(replace(task.env, num_envs=8), agent, iterations=1), "ppo_steps_per_s")
    figures = speed.stack_speed(task.env, agent, members=2, repeats=1)
    assert positive(figures, "stack_ratio", "update_seconds_17", "update_seconds_1")


def test_the_controller() -> None:
    task = make_task("h1-walk")
    figures = speed.controller_speed(task.env, shipped(task).learned(), demo_scenario(UNITREE_H1), 200, repeats=1)
    assert figures["controller_us"] > 0
    assert figures["stream_difference"] <= 1e-5


def test_all_of_it_lands_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, koboshi: Callable[..., object]
) -> None:
    for name, figures in {
        "env_speed": {"env_steps_per_s": 2.0, "env_ratio": 0.9},
        "warp_speed": {"warp_ratio": 11.0},
        "ppo_speed": {"ppo_steps_per_s": 3.0},
        "stack_speed": {"stack_ratio": 1.1},
        "controller_speed": {"controller_us": 90.0},
    }.items():
        monkeypatch.setattr(stage.speed, name, lambda *_, figures=figures: figures)
    assert koboshi("bench", "speed", "--out", tmp_path)[0] == 0  # type: ignore[index]
    written = runs.read_json(tmp_path / "speed.json")
    assert {k: written[k] for k in ("env_ratio", "warp_ratio", "ppo_steps_per_s", "stack_ratio", "controller_us")} == {
        "env_ratio": 0.9, "warp_ratio": 11.0, "ppo_steps_per_s": 3.0, "stack_ratio": 1.1, "controller_us": 90.0,
    }  # fmt: skip
    assert koboshi("bench", "speed", "--no-warp", "--out", tmp_path / "cpu")[0] == 0  # type: ignore[index]
    assert "warp_ratio" not in runs.read_json(tmp_path / "cpu/speed.json")
