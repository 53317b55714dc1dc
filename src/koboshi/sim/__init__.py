"""Physics behind one protocol. `make_backend` picks the implementation by the device's name."""

from __future__ import annotations

import importlib.util

import mujoco

from koboshi.errors import unknown
from koboshi.sim.backend import Backend, make_generator
from koboshi.sim.cpu import CpuBackend
from koboshi.sim.fields import ModelFields
from koboshi.vec_env import anyone, rows_of

BACKENDS = ("cpu", "warp")

__all__ = [
    "BACKENDS",
    "Backend",
    "CpuBackend",
    "ModelFields",
    "anyone",
    "make_backend",
    "make_generator",
    "rows_of",
    "warp_installed",
]


def warp_installed() -> bool:
    """Whether the backend "warp" can be made."""
    return importlib.util.find_spec("mujoco_warp") is not None


def make_backend(name: str, model: mujoco.MjModel, num_envs: int, device: str = "cpu") -> Backend:
    """`name`: "cpu" (mjbatch) or "warp" (MuJoCo Warp, on `device` "cuda", "cuda:0" or "cpu"; extra `gpu`)."""
    if name == "cpu":
        return CpuBackend(model, num_envs)
    if name == "warp":
        from koboshi.sim.gpu import WarpBackend

        return WarpBackend(model, num_envs, device)
    raise unknown("physics backend", name, BACKENDS)
