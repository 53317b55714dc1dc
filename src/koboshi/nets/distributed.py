"""Sums and means over the processes of `torchrun`; without it, each does nothing."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor

from koboshi.devices import local_device


def init_from_environment() -> tuple[int, int]:
    """(rank, world size): joins the process group that `torchrun` describes, if there is one."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return 0, 1
    if not dist.is_initialized():
        if torch.cuda.is_available():
            # So that `cuda` means each process's own.
            torch.cuda.set_device(local_device("cuda"))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum over processes, the same on each."""
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


def mean_over_ranks_(value: Tensor) -> Tensor:
    """Replaces `value` by its mean over processes."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def share_of_ranks(count: Tensor) -> Tensor:
    """What a mean of `count` samples weighs in the mean over processes; 1 if all have as many."""
    mean = mean_over_ranks_(count.to(torch.float32, copy=True))
    return torch.where(mean > 0, count / mean, 0.0)
