"""What one process of `test_training_ranks.py` does: trains the toy, dead at a chosen file if it is told so."""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from toy import train

from koboshi.errors import KoboshiError
from koboshi.nets.distributed import init_from_environment


def die_at(rank: int, pattern: str, count: int, after: bool) -> None:
    """Ends this process, if it is `rank`, before or after it puts the count-th such file in its place."""
    rename, left = os.replace, count

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        left -= fnmatch(Path(target).name, pattern)
        if left == 0 and not after:
            os._exit(9)
        rename(source, target)
        if left == 0:
            os._exit(9)

    if rank == int(os.environ["RANK"]):
        os.replace = replace  # type: ignore[assignment]


def main(folder: Path, *kill: str) -> None:
    torch.set_num_threads(1)
    if kill:
        rank, pattern, count, when = kill
        die_at(int(rank), pattern, int(count), when == "after")
    rank, _ = init_from_environment()
    try:
        train(folder, rank)
    except KoboshiError as error:
        print(f"koboshi: {error}")
        sys.exit(2)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
