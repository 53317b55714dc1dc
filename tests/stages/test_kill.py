"""kill -9 at chosen moments, then the same command: it resumes, and ends as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from koboshi import runs
from koboshi.runs import load_checkpoint

TRAIN = [
    "env.num_envs=8", "agent.trainer.timesteps=40", "agent.trainer.rollout=8",
    "agent.trainer.checkpoint_interval=2",
]  # fmt: skip


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)[0]


def same(a: Path, b: Path) -> bool:
    mine, theirs = weights(a), weights(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


def logged(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody killed."""
    from koboshi import config
    from koboshi.stages import healthy
    from koboshi.tasks import make_task

    root = tmp_path_factory.mktemp("whole")
    return healthy.train(config.override(make_task("h1-dead-joint"), TRAIN), root, "whole", TRAIN).path


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*/config.yaml", 1),  # before anything was learnt
        ("*/checkpoints/000000004.safetensors", 1),  # newer weights than the state to resume from
        ("*/resume.safetensors", 2),
        ("*/checkpoints/000000005.safetensors", 1),  # after the last update, before the final checkpoint
    ],
)
def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, whole: Path, pattern: str, count: int, killed: Callable[..., None], koboshi: Callable[..., Any]
) -> None:
    command = ("train", "h1-dead-joint", "--root", tmp_path, *TRAIN)  # without a name, which is harder
    killed(pattern, count, *command)
    assert koboshi(*command).code == 0
    (run,) = (tmp_path / "h1-dead-joint").iterdir()
    assert same(run / "checkpoints/final.safetensors", whole / "checkpoints/final.safetensors")
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4, 5]
    assert logged(run) == logged(whole)
    assert len(list((run / "checkpoints").iterdir())) == 4  # all of them, and the final one
    # What is finished is not resumed: the next one is new.
    assert koboshi("train", "h1-dead-joint", "--root", tmp_path, *TRAIN[:1], "agent.trainer.timesteps=24").code == 0
    assert len(list((tmp_path / "h1-dead-joint").iterdir())) == 2


def test_killed_specialists_end_with_the_same_weights(
    tmp_path: Path, pipeline: Path, tiny: list[str], killed: Callable[..., None], koboshi: Callable[..., Any]
) -> None:
    healthy = pipeline / "healthy/checkpoints/final.safetensors"
    detector = pipeline / "detector/round-1"
    command = ("specialists", "h1-dead-joint", "--healthy", healthy, "--detector", detector, "--root", tmp_path, *tiny)
    killed("*/resume.safetensors", 3, *command)  # in the second stage
    killed("*/checkpoints/final.safetensors", 1, *command)  # before the members are written
    assert koboshi(*command).code == 0
    (run,) = (tmp_path / "h1-dead-joint").iterdir()
    assert same(run / "bank.safetensors", pipeline / "specialists/bank.safetensors")
    for member in (pipeline / "specialists/members").iterdir():
        assert same(run / "members" / member.name, member)
    assert logged(run) == logged(pipeline / "specialists")
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4]


def test_a_bank_is_trained_on_from_another_ones_weights(
    tmp_path: Path, pipeline: Path, tiny: list[str], koboshi: Callable[..., Any]
) -> None:
    healthy, old = (pipeline / p for p in ("healthy/checkpoints/final.safetensors", "specialists/bank.safetensors"))
    still = [
        "specialists.agent.schedule=fixed",
        "specialists.agent.final_kl=null",
        "specialists.agent.learning_rate=0",
        "specialists.stages=[8]",
    ]
    command = ("specialists", "h1-dead-joint", "--healthy", healthy, "--oracle", "--root", tmp_path, "--name", "on")
    assert koboshi(*command, "--load", old, *tiny, *still).code == 0
    mine, theirs = weights(tmp_path / "h1-dead-joint/on/bank.safetensors"), weights(old)
    learnt = [name for name in theirs if "actor.network" in name]
    assert len(learnt) >= 8 and all(torch.equal(mine[name], theirs[name]) for name in learnt)
    fresh = weights(healthy)
    assert not torch.equal(theirs[learnt[0]][0], fresh[learnt[0]][0]), "nothing had been learnt: the test says little"


def test_a_killed_collection_has_the_same_rows(
    tmp_path: Path, pipeline: Path, tiny: list[str], killed: Callable[..., None], koboshi: Callable[..., Any]
) -> None:
    policy = pipeline / "healthy/checkpoints/final.safetensors"
    command = ("collect", "h1-dead-joint", "--policy", policy, "--root", tmp_path, *tiny)
    folder = tmp_path / "h1-dead-joint/data/healthy"
    killed("*/resume.safetensors", 2, *command)
    killed("*/shard-00002.parquet", 1, *command)  # a shard without its state: lost, and made again
    assert len(list(folder.glob("shard-*"))) == 3
    result = koboshi(*command)
    assert result.code == 0 and result.out.splitlines()[-1] == str(folder)
    mine, theirs = (runs.read_json(f / "card.json") for f in (folder, pipeline / "data/round-1"))
    assert mine["complete"] and len(mine["shards"]) == 4
    assert mine["shards"] == theirs["shards"]  # name -> digest of the columns


def test_a_killed_detector_training_ends_with_the_same_weights(
    tmp_path: Path, pipeline: Path, tiny: list[str], killed: Callable[..., None], koboshi: Callable[..., Any]
) -> None:
    settings = [*tiny, "detector.training.batch_envs=8", "detector.training.chunk=5", "detector.training.epochs=1.4"]

    def command(name: str) -> list[object]:
        return ["detector", "train", pipeline / "data/round-1", *settings, "--out", tmp_path / name]

    killed("*/training.safetensors", 1, *command("killed"))
    state = weights(tmp_path / "killed/training.safetensors")
    assert int(state["iteration"]) == 200  # of 224
    assert not (tmp_path / "killed/detector.safetensors").exists()
    assert koboshi(*command("killed")).code == 0
    assert koboshi(*command("whole")).code == 0
    assert same(*(tmp_path / name / "detector.safetensors" for name in ("killed", "whole")))
    assert not (tmp_path / "killed/training.safetensors").exists()


def test_a_killed_pipeline_ends_with_the_same_figures(
    tmp_path: Path, pipeline: Path, tiny: list[str], killed: Callable[..., None], koboshi: Callable[..., Any]
) -> None:
    command = ("pipeline", "h1-dead-joint", "--root", tmp_path, *tiny)
    killed("*/specialists/checkpoints/000000002.safetensors", 1, *command)
    killed("*/metrics.json", 1, *command)
    assert koboshi(*command).code == 0
    folder = tmp_path / "h1-dead-joint/pipeline"

    def figures(path: Path) -> dict[str, Any]:
        found: dict[str, Any] = runs.read_json(path / "metrics.json")["controllers"]
        return {n: {k: v for k, v in c.items() if not k.endswith(("_us", "_ratio"))} for n, c in found.items()}

    assert figures(folder) == figures(pipeline)
    for name in ("healthy/checkpoints/final.safetensors", "detector/round-2/detector.safetensors"):
        assert same(folder / name, pipeline / name)
    assert same(folder / "controller.safetensors", pipeline / "controller.safetensors")
    assert (folder / "report.html").exists()
