"""What comes after a training does not ask which learner or actor it was, nor whether koboshi knows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koboshi.runs import load_checkpoint
from koboshi.stages.folders import find, task_of

QUICK = ["env.num_envs=16", "agent.trainer.timesteps=16", "agent.trainer.rollout=8", "evaluate.seconds=1"]
OUTSIDE = """
from dataclasses import dataclass
from koboshi.algos.ppo import PPOCfg
from koboshi.nets.actors import Mlp

@dataclass(frozen=True)
class PlainCfg:
    groups: tuple[str, ...] = ("policy",)
    gain: float = 0.01
    loss_groups: tuple[str, ...] = ()

    def build(self, members, specs, outputs):
        return Mlp(members, specs, (), outputs, self.gain)

@dataclass(frozen=True)
class CalmPPOCfg(PPOCfg):
    entropy_coef: float = 0.0

ACTORS, AGENTS = [PlainCfg], [CalmPPOCfg]
"""


def use(koboshi: Callable[..., Any], root: Path, name: str, *module: str) -> None:
    """Train, film and judge."""
    said = koboshi("train", "h1-velocity", *QUICK, *settings(root, name), "--name", name, "--root", root, *module)
    assert said.code == 0, said.err
    run = f"h1-velocity/{name}"
    video = root / "play.mp4"
    assert koboshi("play", run, "--seconds", "0.1", "--video", video, "--root", root, *module).code == 0
    assert video.stat().st_size > 1000
    out = ("evaluate.episodes_a_joint=1", "--out", root / f"{name}_figures", "--root", root)
    assert koboshi("evaluate", run, *out, *module).code == 0


def settings(root: Path, name: str) -> list[str]:
    return (root / f"{name}.txt").read_text().split()


def test_a_student_of_a_stored_teacher(tmp_path: Path, koboshi: Callable[..., Any], fails: Callable[..., str]) -> None:
    (tmp_path / "teacher.txt").write_text("")
    use(koboshi, tmp_path, "teacher")
    student = ["agent.type=DistillationCfg", "agent.trainer.timesteps=16", "agent.trainer.rollout=8"]
    assert fails("train", "h1-velocity", *student, "--root", tmp_path).startswith("agent.teacher is empty")
    assert "no-such" in fails("train", "h1-velocity", *student, "agent.teacher=no-such", "--root", tmp_path)
    teacher = find("h1-velocity/teacher", tmp_path)
    (tmp_path / "student.txt").write_text(" ".join([*student, f"agent.teacher={teacher}"]))
    use(koboshi, tmp_path, "student")
    assert type(task_of(find("h1-velocity/student", tmp_path)).agent).__name__ == "DistillationCfg"


@pytest.mark.usefixtures("as_before")
def test_an_actor_and_a_learner_from_outside(
    tmp_path: Path, koboshi: Callable[..., Any], fails: Callable[..., str]
) -> None:
    module = tmp_path / "mine.py"
    module.write_text(OUTSIDE)
    chosen = "agent.type=CalmPPOCfg agent.network.actor.type=PlainCfg agent.network.actor.gain=0.5"
    quick = "agent.trainer.timesteps=16 agent.trainer.rollout=8"
    said = fails("train", "h1-velocity", *chosen.split(), "--root", tmp_path)
    assert said == "agent.type: expected 'PPOCfg' or 'DistillationCfg', got 'CalmPPOCfg'"
    (tmp_path / "mine.txt").write_text(f"{chosen} {quick}")
    use(koboshi, tmp_path, "mine", "--module", str(module))
    path = find("h1-velocity/mine", tmp_path)
    task = task_of(path)
    assert task.agent.network.actor.gain == 0.5 and task.agent.entropy_coef == 0.0
    assert load_checkpoint(path)[1]["network"]["actor"]["type"] == "PlainCfg"
