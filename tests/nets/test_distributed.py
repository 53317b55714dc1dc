"""Without `torchrun`, averaging over processes does nothing; with it, see tests/algos/test_ranks.py."""

from __future__ import annotations

import pytest
import torch

from koboshi.nets.distributed import (
    init_from_environment,
    mean_over_ranks_,
    share_of_ranks,
    sum_over_ranks,
)


def test_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert init_from_environment() == (0, 1)
    x = torch.tensor([3.0, 0.0])
    assert sum_over_ranks(x).tolist() == [3, 0]
    assert mean_over_ranks_(x.clone()).tolist() == [3, 0]
    assert share_of_ranks(torch.tensor([5, 0])).tolist() == [1, 0]
