"""A batch worked on in parts, each in a thread of its own that keeps to one core.

PyTorch's own threads meet after each operation, and between operations as short as ours they wait for one another:
on two cores an update of PPO in two parts takes 0.8 of the time that it takes as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

FEWEST_ROWS = 1024
"""Parts smaller than this gain nothing."""


def count_of_parts(device: torch.device, rows: int) -> int:
    """How many parts a batch of so many rows is best worked on in: at most one a thread of PyTorch's; on a GPU, one."""
    if device.type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads(), rows // FEWEST_ROWS))


def in_parts(work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """`work` of each part, side by side; in the order of the parts. One part alone stays in the caller's thread."""
    if len(parts) == 1:
        return [work(parts[0])]
    return list(_threads(len(parts), torch.get_num_threads()).map(work, parts))


@cache
def _threads(count: int, cores: int) -> ThreadPoolExecutor:
    """Threads that share PyTorch's cores evenly; they live as long as the process."""
    together = Barrier(count)

    def begin(_: int) -> None:
        torch.get_num_threads()  # a thread's first operation would take the process's number over what is set here
        torch.set_num_threads(max(1, cores // count))
        together.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="koboshi-part")
    # Each waits for the others, so that every thread of the pool has begun.
    list(pool.map(begin, range(count)))
    # What they set for themselves is also what threads of others would begin with.
    torch.set_num_threads(cores)
    return pool
