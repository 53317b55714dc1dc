"""A device that is not there: tensors that say they are elsewhere, so that a CPU alone can prove a hot loop.

Numbers are true: each tensor wraps one on the CPU, and every operation runs there. What a GPU would refuse is
refused (tensors of two devices in one operation, a random generator of another device), and what would make the
processor wait for a GPU (a number read back, a copy between devices, a boolean index) is counted, with the line
that asked for it.

    with pretend_cuda() as device:
        backend = PretendBackend(model, num_envs=4)
        ...                                    # build and warm up
        device.synchronised.clear()
        env.step(action)
        assert device.synchronised == []
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import mujoco
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from koboshi.sim import CpuBackend

_setup_privateuseone_for_python_backend(rename="pretend")
DEVICE = torch.device("pretend:0")

_WAITS = (
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "bincount", "equal", "is_nonzero",
    "repeat_interleave.Tensor", "histc", "linalg_inv_ex", "_linalg_check_errors", "linalg_eig",
)  # fmt: skip
"""Operations (by the beginnings of their names) whose result, or its shape, the processor must know."""


class PretendTensor(Tensor):
    """`raw` on the CPU is what it holds."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> PretendTensor:
        made = Tensor._make_wrapper_subclass(
            cls, raw.size(), raw.stride(), raw.storage_offset(), dtype=raw.dtype, device=DEVICE
        )
        made.raw = raw.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a pretended device outside `pretend_cuda`")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretended {self.raw}"


_GENERATORS: dict[int, torch.Generator] = {}
"""Those that belong to the pretended device, by their address, all that an operation still knows of them."""


class _Generator(torch.Generator):
    """Belongs to the device it was asked for; its numbers are the CPU's."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")
        if torch.device(device).type == DEVICE.type:
            _GENERATORS[made._cdata] = made
        return made

    @property
    def device(self) -> torch.device:
        return DEVICE if self._cdata in _GENERATORS else torch.device("cpu")


class PretendDevice(TorchDispatchMode):
    """Runs what meets the pretended device; `synchronised` lists what would have waited: operation, place, line."""

    device = DEVICE

    def __init__(self) -> None:
        super().__init__()
        self.synchronised: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::") + ("." + func._schema.overload_name).rstrip(".")
        there = _result_is_there(name, args, kwargs)
        self._judge(name, there, args, kwargs)
        raw_args, raw_kwargs = pytree.tree_map_only(PretendTensor, lambda tensor: tensor.raw, (args, kwargs))
        if raw_kwargs.get("device") is not None:
            raw_kwargs["device"] = torch.device("cpu")
        run = _gru_cell if name == "_thnn_fused_gru_cell" else func
        out = run(*raw_args, **raw_kwargs)
        if not there:
            return out
        return return_and_correct_aliasing(func, args, kwargs, pytree.tree_map_only(Tensor, PretendTensor, out))

    def _judge(self, name: str, there: bool, args: Any, kwargs: dict[str, Any]) -> None:
        """Refuses what mixes devices, notes what waits."""
        generator = kwargs.get("generator")
        if generator is not None and (generator._cdata in _GENERATORS) != there:
            raise RuntimeError(f"{name}: expected a generator of the result's device, found another's")
        tensors = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        sides = {_is_there(tensor) for tensor in tensors if tensor.dim() or _is_there(tensor)}
        if name in ("_to_copy", "copy_"):
            source = tensors[-1]
            if _is_there(source) != there:
                self._waits(f"copy from {source.device}")
        elif sides == {True, False}:
            raise RuntimeError(f"{name}: expected all tensors on one device, found both {DEVICE} and cpu")
        elif True in sides and name.startswith(_WAITS) and "static" not in name:
            self._waits(name)
        elif True in sides and name.startswith(("index.Tensor", "index_put", "_unsafe_index")) and _by_mask(args[1]):
            self._waits(f"{name} by a mask")

    def _waits(self, what: str) -> None:
        frame = sys._getframe(2)
        while frame.f_back is not None and _is_plumbing(frame.f_code.co_filename):
            frame = frame.f_back
        file, line = frame.f_code.co_filename, frame.f_lineno
        self.synchronised.append(f"{what} at {file}:{line}: {linecache.getline(file, line).strip()}")


def _by_mask(indices: list[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _is_there(tensor: Tensor) -> bool:
    return isinstance(tensor, PretendTensor)


def _result_is_there(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]).type == DEVICE.type
    if name == "copy_":
        return _is_there(args[0])
    return any(isinstance(value, PretendTensor) for value in pytree.tree_leaves((args, kwargs)))


def _is_plumbing(file: str) -> bool:
    return file == __file__ or "/torch/" in file


def _gru_cell(x: Tensor, h: Tensor, hidden: Tensor, x_bias: Tensor, h_bias: Tensor) -> tuple[Tensor, Tensor]:
    """What GPUs run for `nn.GRUCell` and a CPU has not: (N, 3H) gates of input and hidden state, (N, H)."""
    x, h = x + x_bias, h + h_bias
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, 1), h.chunk(3, 1)
    reset, update = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    new = (xn + reset * hn).tanh()
    return new + update * (hidden - new), torch.cat([reset, update, new, hidden, hn], 1)


@contextmanager
def pretend_cuda() -> Iterator[PretendDevice]:
    """Inside, `device.device` can be asked for like "cuda:0"; `torch.Generator` makes generators for it too."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(…, device=…) comes through the mode
    try:
        with patch.object(torch, "Generator", _Generator), PretendDevice() as device:
            yield device
    finally:
        _GENERATORS.clear()
        torch._C._set_only_lift_cpu_tensors(before)


class PretendBackend:
    """`sim.Backend` whose tensors are on the pretended device: MuJoCo on the CPU, numbers equal to `CpuBackend`'s."""

    def __init__(self, model: mujoco.MjModel, num_envs: int) -> None:
        self._cpu = CpuBackend(model, num_envs, num_threads=1)
        self.model, self.num_envs, self.device = model, num_envs, DEVICE
        self._tensors: dict[str, Tensor] = {}

    def read(self, field: str) -> Tensor:
        return self._there("data." + field, self._cpu.read(field))

    def expand(self, field: str) -> Tensor:
        return self._there("model." + field, self._cpu.expand(field))

    def _there(self, name: str, live: Tensor) -> Tensor:
        return self._tensors.setdefault(name, PretendTensor(live))

    def world_geom_pos(self) -> list[Tensor]:
        return [self.expand("geom_pos")]

    def rays(self, start: Tensor, direction: Tensor) -> Tensor:
        return PretendTensor(self._cpu.rays(*(each.raw for each in (start, direction))))  # type: ignore[attr-defined]

    def set_const(self, mask: Tensor | None = None) -> None:
        self._cpu.set_const(_here(mask))

    def step(self, n: int = 1) -> None:
        self._cpu.step(n)

    def forward(self, mask: Tensor | None = None) -> None:
        self._cpu.forward(_here(mask))

    def reset(self, mask: Tensor | None = None) -> None:
        self._cpu.reset(_here(mask))

    def check(self) -> None:
        self._cpu.check()

    def snapshot(self) -> Tensor:
        return PretendTensor(self._cpu.snapshot())

    def restore(self, state: Tensor) -> None:
        raw = _here(state)
        assert raw is not None
        self._cpu.restore(raw)


def _here(value: Tensor | None) -> Tensor | None:
    if value is not None and not isinstance(value, PretendTensor):
        raise RuntimeError(f"expected a tensor on {DEVICE}, found {value.device}")
    return None if value is None else value.raw
