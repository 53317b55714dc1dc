"""Two processes of one `torchrun` on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from torch import Tensor

import koboshi
from koboshi.runs import load_checkpoint


def run_two(script: Path, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What both processes of `script FOLDER` left as FOLDER/rank0.safetensors and rank1.safetensors."""
    paths = (Path(koboshi.__file__).parents[1], Path(__file__).parent)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, str(script), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    first, second = (load_checkpoint(folder / f"rank{i}.safetensors")[0] for i in range(2))
    return first, second
