"""What "cuda" and "cuda:1" mean to a process, alone and among others."""

from __future__ import annotations

import pytest
import torch

from koboshi.devices import local_device
from koboshi.errors import KoboshiError


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
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert local_device("cpu") == torch.device("cpu")
    with pytest.raises(KoboshiError, match="'cuda:0' is one device for all 2 processes; 'cuda' is each one's own"):
        local_device("cuda:0")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:x", "cpu:1", "tpu"])
def test_a_device_that_is_not_there_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (torch.cuda, torch.xpu):
        monkeypatch.setattr(kind, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(KoboshiError, match=f"no device '{name}' here; available: cpu$"):
        local_device(name)
