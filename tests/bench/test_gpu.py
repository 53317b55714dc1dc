"""`koboshi bench gpu` without a GPU: MuJoCo Warp on its CPU device stands in."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from koboshi import plugins, runs
from koboshi.bench import contract, gpu
from koboshi.errors import KoboshiError
from koboshi.sim import make_backend
from koboshi.stages import speed as stage
from koboshi.tasks import make_task


def test_without_cuda_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(KoboshiError, match="no CUDA device here"):
        stage.gpu("h1-dead-joint", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_fails_or_dies_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    report: dict[str, Any] = {"machine": "this"}
    said: list[str] = []
    parts = {
        "wrong": gpu.Part(math.sqrt, (-1,)),  # type: ignore[arg-type]
        "crash": gpu.Part(os._exit, (3,)),
        "right": gpu.Part(dict, ([("steps_per_s", 5.0)],)),
    }
    gpu.run_parts(report, parts, tmp_path / "gpu.json", said.append)
    written = runs.read_json(tmp_path / "gpu.json")
    assert written == report and written["machine"] == "this"
    assert list(written["parts"]) == ["wrong", "crash", "right"]
    assert written["parts"]["wrong"]["error"].startswith("ValueError: ")
    assert "sqrt" in written["parts"]["wrong"]["traceback"] or "ValueError" in written["parts"]["wrong"]["traceback"]
    assert written["parts"]["crash"]["error"] == "its process died"
    assert written["parts"]["right"]["steps_per_s"] == 5.0 and "error" not in written["parts"]["right"]
    assert said[2] == "right: steps_per_s 5"


OUTSIDE = """
from dataclasses import dataclass

@dataclass
class Mine:
    steps: int = 5

TASKS = {"mine": Mine}
"""


@pytest.mark.usefixtures("as_before")
def test_a_part_knows_what_was_brought_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OUTSIDE)
    plugins.load([str(tmp_path / "own.py")])
    parts = {"own": gpu.Part(vars, (sys.modules["outside_own"].Mine(),))}

    def only_these(report: dict[str, Any], _: Any, *rest: Any) -> None:
        run_parts(report, parts, *rest)

    run_parts = gpu.run_parts
    monkeypatch.setattr(gpu, "run_parts", only_these)
    report = stage.gpu("h1-dead-joint", tmp_path, device="cpu", sizes=())
    assert report["parts"]["own"]["steps"] == 5


def test_the_parts_are_what_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, gpu.Part] = {}
    monkeypatch.setattr(gpu, "run_parts", lambda report, parts, path, say, prepare: seen.update(parts))
    report = stage.gpu("h1-dead-joint", tmp_path, ["env.decimation=2"], device="cpu", sizes=(8, 16))
    assert list(seen) == ["contract", "environment 8", "ppo 8", "environment 16", "ppo 16", "pipeline"]
    cfg = seen["environment 16"].args[0]
    assert (cfg.num_envs, cfg.sim.backend, cfg.sim.device, cfg.decimation) == (16, "warp", "cpu", 2)
    assert seen["ppo 8"].args[1].trainer.device == "cpu"
    name, settings, folder = seen["pipeline"].args
    assert (name, folder) == ("h1-dead-joint", tmp_path)
    assert {"env.sim.device=cpu", "agent.trainer.device=cpu", "specialists.num_envs=2304"} <= set(settings)
    assert settings[-1] == "env.decimation=2"  # what was given has the last word
    assert report["overrides"] == settings and report["machine"]["versions"]["torch"]


@pytest.mark.parametrize("backend", ["cpu", "warp"])
def test_both_backends_keep_the_contract(backend: str) -> None:
    assert set(contract.run_checks(backend, "cpu")) == set(contract.CHECKS)


def test_a_backend_that_resets_too_much_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(*args: Any) -> Any:
        backend: Any = make_backend(*args)
        reset = backend.reset
        backend.reset = lambda mask=None: reset()
        return backend

    monkeypatch.setattr(contract, "make_backend", careless)
    with pytest.raises(AssertionError, match="resets_alone"):
        contract.run_checks("cpu", "cpu")


def test_speeds_with_warp(positive: Callable[..., bool]) -> None:
    task = make_task("h1-dead-joint")
    cfg = gpu.on_device(task.env, "cpu", 4)
    assert positive(gpu.env_part(cfg, steps=2, warm_up=1), "env_steps_per_s")
    agent = replace(task.agent, trainer=replace(task.agent.trainer, rollout=2))
    assert positive(gpu.ppo_part(cfg, agent, iterations=1), "ppo_steps_per_s")
