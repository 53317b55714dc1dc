"""The processes of one `torchrun`: which of them this is, and what they agree on. Without it there is one."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist

from koboshi.errors import KoboshiError


def world() -> tuple[int, int]:
    """(rank, world size) of the group that was joined; (0, 1) where none was."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this process is the one that writes run folders and talks to the user."""
    return world()[0] == 0


def gather(value: Any) -> list[Any]:
    """Every process's value (JSON data), in the order of their ranks, on each of them.

    As JSON, since torch's own way of gathering objects would unpickle what another machine sent.
    """
    size = world()[1]
    if size == 1:
        return [value]
    mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
    dist.all_gather(lengths, torch.tensor([len(mine)]))
    longest = max(int(n) for n in lengths)
    padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(size)]
    dist.all_gather(padded, torch.nn.functional.pad(mine, (0, longest - len(mine))))
    return [json.loads(bytes(text[: int(n)].tolist())) for text, n in zip(padded, lengths, strict=True)]


def agree(error: KoboshiError | None) -> None:
    """Raises the first error that any process has, on all of them: none waits for one that has given up."""
    for text in gather(None if error is None else str(error)):
        if text is not None:
            raise error if error is not None and str(error) == text else KoboshiError(text)
