"""Verbs under `torchrun`: two real processes, one run, one voice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from koboshi.detect import load_detector
from koboshi.runs import load_checkpoint


def torchrun(*args: object) -> str:
    """What both processes of `koboshi ARGS` say on stdout."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "koboshi"]
    done = subprocess.run(
        [*command, *map(str, args)], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_training_without_a_name_is_one_run_of_two(tmp_path: Path, tiny: list[str]) -> None:
    said = torchrun("train", "h1-dead-joint", "--root", tmp_path, *tiny)
    (run,) = (tmp_path / "h1-dead-joint").iterdir()
    assert said.count(str(run)) == 1
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 5
    first, second = (load_checkpoint(run / f"resume{rank}.safetensors")[0] for rank in ("", ".rank1"))
    learnt = "policy.actor.network.layers.0.weight"
    assert torch.equal(first[learnt], second[learnt])
    assert not torch.equal(first["env.state.joint_vel"], second["env.state.joint_vel"]), "both stepped the same robots"


def test_a_detector_is_learnt_by_both_and_written_by_one(tmp_path: Path, pipeline: Path, tiny: list[str]) -> None:
    settings = [*tiny, "detector.training.batch_envs=8", "detector.training.chunk=25"]
    said = torchrun("detector", "train", pipeline / "data/round-1", *settings, "--out", tmp_path / "detector")
    assert said.count("detector.json") == 1
    assert load_detector(tmp_path / "detector/detector.safetensors")[2]["split"]
    assert not (tmp_path / "detector/training.safetensors").exists()
