"""Two processes of `torchrun` train the detector that one trains, also over a kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from detector_rank import learn

import koboshi
from koboshi.runs import load_checkpoint


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    source = str(Path(koboshi.__file__).parents[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, str(Path(__file__).with_name("detector_rank.py")), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    first, second = (load_checkpoint(tmp_path / f"rank{i}.safetensors")[0] for i in range(2))
    alone = learn(tmp_path / "alone")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, alone[name], atol=2e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    assert first["last.iteration"] > 12 and first["last.hidden"].abs().sum(1).min() > 0
