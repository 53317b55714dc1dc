"""What a device's name means to this process."""

from __future__ import annotations

import os

import torch

from koboshi.errors import KoboshiError


def local_device(name: str) -> torch.device:
    """The device that `name` means to this process: "cuda" is each `torchrun` process's own, cuda:LOCAL_RANK.

    KoboshiError where this build or machine lacks it, or where one device is named for several processes.
    """
    kind, _, index = name.partition(":")
    count = _devices(kind)
    if not index and kind in ("cuda", "xpu") and count:
        return torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")) % count)
    if not count or (index and (not index.isdecimal() or int(index) >= count)):
        there = [f"{k}:{i}" for k in ("cuda", "xpu") for i in range(_devices(k))] + ["mps"] * _devices("mps")
        raise KoboshiError(f"no device '{name}' here; available: {', '.join(['cpu', *there])}")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if index and count > 1 and processes > 1:
        raise KoboshiError(f"'{name}' is one device for all {processes} processes; '{kind}' is each one's own")
    return torch.device(name)


def _devices(kind: str) -> int:
    """How many devices of a kind this process can use."""
    if kind == "cuda":
        return torch.cuda.device_count()
    if kind == "xpu":
        return torch.xpu.device_count()
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return int(kind == "cpu")
