"""The one interface to physics, with two implementations: `cpu.py` (mjbatch) and `gpu.py` (MuJoCo Warp)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import mujoco
import torch
from torch import Tensor


@runtime_checkable
class Backend(Protocol):
    """N MuJoCo simulations of one model.

    Fields carry MuJoCo's names and layout with a leading N. Tensors that `read` and `expand` return are live:
    asked for once, they always show (and, for inputs, set) what the simulations hold.

    Inputs that may be written between calls: `qpos, qvel, ctrl, qacc_warmstart` and every expanded model
    field. Derived fields (`sensordata, actuator_force, xpos`, …) lag one substep behind `qpos` and `qvel`
    after `step`, as with `mj_step` itself; `forward` makes them current. They must be read for the first time
    before the first step, so that the backend knows to deliver them.

    Where the two differ: the CPU holds float64 states (derived and expanded fields likewise), Warp float32;
    Warp's tensors live on its device. Warp refuses `set_const`, varies fewer model fields, and runs every
    call on all simulations, then puts back those that `ids` leaves out.
    """

    num_envs: int
    device: torch.device
    model: mujoco.MjModel
    """The template: names, ids, sizes, original values. Writing to it does not reach the simulations."""

    def read(self, field: str) -> Tensor:
        """(N, …) live tensor over an `mjData` field. KoboshiError where there is no such field."""
        ...

    def expand(self, field: str) -> Tensor:
        """(N, …) live tensor over an `mjModel` or `mjOption` field, one copy a simulation.

        Asked for before the first step only. KoboshiError for a field that is unknown or cannot be varied.
        """
        ...

    def set_const(self, ids: Tensor | None = None) -> None:
        """`mj_setConst`: recomputes what follows from expanded masses, lengths and so on."""
        ...

    def step(self, n: int = 1) -> None:
        """n times `mj_step`, for all."""
        ...

    def forward(self, ids: Tensor | None = None) -> None:
        """`mj_forward`: makes derived fields current. `ids`: (M,) int64 ascending; None is all."""
        ...

    def reset(self, ids: Tensor | None = None) -> None:
        """`mj_resetData`, then `mj_forward`; drops what was written before. Expanded model fields stay."""
        ...

    def snapshot(self) -> Tensor:
        """(N, nstate) copy of everything that integration depends on (`mjSTATE_INTEGRATION`)."""
        ...

    def restore(self, state: Tensor) -> None:
        """Puts a `snapshot` back, bit for bit. Derived fields are stale until the next call."""
        ...
