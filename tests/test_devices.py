"""The pretended device refuses what a GPU refuses and sees every wait; otherwise tests on it prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from devices import DEVICE, PretendBackend, PretendDevice, pretend_cuda
from koboshi.sim import Backend, CpuBackend, anyone, make_generator

PENDULUM = """
<mujoco>
  <worldbody><body><joint name="swing" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 -1" size=".02"/></body>
  </worldbody>
  <actuator><motor joint="swing"/></actuator>
</mujoco>
"""


@pytest.fixture
def device() -> Iterator[PretendDevice]:
    with pretend_cuda() as device:
        yield device


WAITS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "item": lambda x, mask: x[0, 0].item(),
    "float": lambda x, mask: float(x.sum()),
    "if": lambda x, mask: bool(mask.any()),
    "nonzero": lambda x, mask: mask.nonzero(),
    "where": lambda x, mask: torch.where(mask),
    "masked read": lambda x, mask: x[mask],
    "masked write": lambda x, mask: x.__setitem__(mask, 1.0),
    "masked select": lambda x, mask: x.masked_select(x > 0),
    "unique": lambda x, mask: mask.unique(),
    "repeat": lambda x, mask: torch.repeat_interleave(x, mask.long(), dim=0),
    "equal": lambda x, mask: torch.equal(x, x),
    "cpu": lambda x, mask: x.cpu(),
    "read into the cpu": lambda x, mask: torch.zeros(4, 3).copy_(x),
    "write from the cpu": lambda x, mask: x.copy_(torch.zeros(4, 3)),
    "move there": lambda x, mask: torch.zeros(4, 3).to(x.device),
    "new from numbers": lambda x, mask: torch.tensor([1.0, 2.0], device=x.device),
    "new from numpy": lambda x, mask: torch.as_tensor(np.zeros(3), device=x.device),
    "index by a list": lambda x, mask: x[[0, 2]],
}


@pytest.mark.parametrize("name", WAITS)
def test_every_wait_is_seen(device: PretendDevice, name: str) -> None:
    x, mask = torch.zeros(4, 3, device=DEVICE), torch.zeros(4, dtype=torch.bool, device=DEVICE)
    assert device.synchronised == []
    WAITS[name](x, mask)
    assert len(device.synchronised) == 1
    assert "test_devices.py" in device.synchronised[0], "it names the line that asked"


def test_what_a_hot_loop_may_do_waits_for_nothing(device: PretendDevice) -> None:
    x, mask = torch.ones(4, 3, device=DEVICE), torch.zeros(4, dtype=torch.bool, device=DEVICE)
    mask[1], ids = True, torch.arange(2, device=DEVICE)
    x[:, 0] = 2.0
    x[:, 1:] += x[:, :1]
    y = torch.where(mask[:, None], x, 0.0).clamp(max=2.5).masked_fill(~mask[:, None], 1.0)
    z = torch.cat([x[ids], y.index_select(0, ids), torch.full((1, 3), 0.5, device=DEVICE)])
    z.copy_(z.flip(0)).add_(torch.tensor(1.0))
    noise = torch.rand(4, 3, generator=make_generator(DEVICE, 0), device=DEVICE)
    assert anyone(mask)
    assert device.synchronised == []
    assert z.cpu().tolist() == [[1.5] * 3, [3.0, 3.5, 3.5], [2.0] * 3, [3.0, 4.0, 4.0], [3.0, 4.0, 4.0]]
    assert torch.equal(noise.cpu(), torch.rand(4, 3, generator=make_generator("cpu", 0)))
    assert (x.device, y.device, noise.device) == (DEVICE, DEVICE, DEVICE)


MIXED: dict[str, Callable[[Tensor], object]] = {
    "add": lambda x: x + torch.zeros(4, 3),
    "in place": lambda x: torch.zeros(4, 3).add_(x),
    "where": lambda x: torch.where(torch.zeros(4, 1, dtype=torch.bool), x, 0.0),
    "cat": lambda x: torch.cat([x, torch.zeros(4, 3)]),
    "index": lambda x: x[torch.tensor([0, 1])],
    "linear": lambda x: torch.nn.Linear(3, 2)(x),
    "generator": lambda x: torch.rand(3, generator=torch.Generator(), device=x.device),
    "generator there": lambda x: torch.rand(3, generator=torch.Generator(x.device)),
}


@pytest.mark.parametrize("name", MIXED)
def test_devices_do_not_mix(device: PretendDevice, name: str) -> None:
    x = torch.zeros(4, 3, device=DEVICE)
    with pytest.raises(RuntimeError, match="device"):
        MIXED[name](x)


def test_it_learns_the_same_numbers(device: PretendDevice) -> None:
    """Modules, gradients and an optimiser, bit for bit, and nothing waits."""
    found = []
    for where in ("cpu", DEVICE):
        torch.manual_seed(0)
        cell, head = torch.nn.GRUCell(3, 5), torch.nn.Linear(5, 1)
        cell, head, x = cell.to(where), head.to(where), torch.arange(12.0).view(4, 3).to(where)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        for _ in range(3):
            with torch.no_grad():
                memory = cell(x)
            loss = (head(memory) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(torch.cat([p.detach().cpu().flatten() for p in head.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-7)


def test_the_backend_is_the_cpus_elsewhere(device: PretendDevice) -> None:
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    there, here = PretendBackend(model, 2), CpuBackend(model, 2)
    assert isinstance(there, Backend)
    there.read("qpos"), there.read("ctrl"), there.expand("dof_damping")
    device.synchronised.clear()
    for backend in (there, here):
        mask = torch.arange(2, device=backend.device) > 0
        backend.expand("dof_damping")[:] = 0.1
        backend.read("ctrl")[:] = 0.5
        backend.step(3)
        backend.reset(mask)
        backend.read("qpos").copy_(torch.where(mask[:, None], 0.3, backend.read("qpos")))
        backend.set_const(mask)
        backend.forward(mask)
        backend.step(3)
    assert device.synchronised == []
    assert torch.equal(there.read("qpos").cpu(), here.read("qpos"))
    assert torch.equal(there.snapshot().cpu(), here.snapshot())
    with pytest.raises(RuntimeError, match="expected a tensor on pretend:0, found cpu"):
        there.forward(torch.tensor([True, False]))


def test_afterwards_all_is_as_before() -> None:
    generator = torch.Generator
    with pretend_cuda():
        x = torch.zeros(3, device=DEVICE)
    assert torch.Generator is generator
    assert torch.tensor([1.0]).device.type == "cpu"
    with pytest.raises(RuntimeError, match="outside"):
        x + 1
