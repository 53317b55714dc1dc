"""The one interface to physics, with two implementations: `cpu.py` (mjbatch) and `gpu.py` (MuJoCo Warp)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import mujoco
import torch
from torch import Tensor

from koboshi.errors import KoboshiError, at_least


@runtime_checkable
class Backend(Protocol):
    """N MuJoCo simulations of one model.

    Fields carry MuJoCo's names and layout with a leading N. Tensors that `read` and `expand` return are live:
    asked for once, they always show (and, for inputs, set) what the simulations hold. `mask` is (N,) bool on
    `device`: the simulations meant; None is all.

    Inputs that may be written between calls: `qpos, qvel, ctrl, history, qacc_warmstart, xfrc_applied` and
    every expanded model field. Derived fields (`sensordata, actuator_force, xpos`, …) lag one substep behind `qpos`
    and `qvel` after `step`, as with `mj_step` itself, and keep their old values after `reset`; `forward` makes
    them current.
    They must be read for the first time before the first step, so that the backend knows to deliver them.

    No call but `check` and `snapshot` reads anything back from the device, so none waits for it.

    Where the two differ: the CPU holds float64 states (derived and expanded fields likewise), Warp float32;
    Warp's tensors live on its device. Warp varies fewer model fields, and runs `forward` on all
    simulations, then puts back those that `mask` leaves out.
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

    def world_geom_pos(self) -> list[Tensor]:
        """Live (N, ngeom, 3) tensors in which the places of the world's own geoms stand, m; to be written alike.

        Asked for before the first step only.
        """
        ...

    def set_const(self, mask: Tensor | None = None) -> None:
        """`mj_setConst`: recomputes what follows from expanded masses, armatures, lengths and so on.

        At least in the simulations meant; those left out may be made to agree with their expanded fields as well.
        """
        ...

    def rays(self, start: Tensor, direction: Tensor) -> Tensor:
        """(N, P) m to the first geom of group 0 that each ray meets, −1 where none is; both (N, P, 3), world frame.

        Geoms are where they were when derived fields were computed.
        """
        ...

    def step(self, n: int = 1) -> None:
        """n times `mj_step`, for all."""
        ...

    def forward(self, mask: Tensor | None = None) -> None:
        """`mj_forward`: makes derived fields current."""
        ...

    def reset(self, mask: Tensor | None = None) -> None:
        """The state that `mj_resetData` gives; what was written before is gone. Expanded model fields stay."""
        ...

    def check(self) -> None:
        """Raises KoboshiError for what went wrong in any call since the last check; waits for the device."""
        ...

    def snapshot(self) -> Tensor:
        """(N, nstate) copy of everything that integration depends on (`mjSTATE_INTEGRATION`)."""
        ...

    def restore(self, state: Tensor) -> None:
        """Puts a `snapshot` back, bit for bit. Derived fields are stale until the next call."""
        ...


def check_request(model: mujoco.MjModel, num_envs: int) -> None:
    """KoboshiError for what no backend steps."""
    at_least("num_envs", num_envs, 1)
    if model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP:
        raise KoboshiError("models with sleep enabled are refused: its bookkeeping is not in the state")


def make_generator(device: torch.device | str, seed: int) -> torch.Generator:
    """Random numbers that are drawn on `device`, a function of the seed."""
    return torch.Generator(device).manual_seed(seed)
