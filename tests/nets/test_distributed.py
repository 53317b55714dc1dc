"""Without `torchrun`, averaging over processes does nothing; with it, see tests/algos/test_ranks.py."""

from __future__ import annotations

import pytest
import torch

from koboshi.errors import KoboshiError
from koboshi.nets.distributed import (
    init_from_environment,
    local_device,
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


def test_devices_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device("cpu") == torch.device("cpu")
    for rank, index in (("0", 0), ("1", 1), ("3", 1)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert local_device("cuda") == torch.device("cuda", index)
        assert local_device("cuda:0") == torch.device("cuda:0")
    monkeypatch.delenv("LOCAL_RANK")
    assert local_device("cuda") == torch.device("cuda:0")
    with pytest.raises(KoboshiError, match=r"no device 'cuda:2' here; available: cpu, cuda:0, cuda:1$"):
        local_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:x", "cpu:1", "tpu"])
def test_a_device_that_is_not_there_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (torch.cuda, torch.xpu):
        monkeypatch.setattr(kind, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(KoboshiError, match=f"no device '{name}' here; available: cpu$"):
        local_device(name)
