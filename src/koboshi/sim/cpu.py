"""MuJoCo on the CPU: mjbatch steps all simulations on a C++ thread pool."""

from __future__ import annotations

import mjbatch
import mujoco
import numpy as np
import torch
from torch import Tensor

from koboshi.errors import KoboshiError, unknown
from koboshi.sim.backend import check_request

_GROUP_0 = np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8)


class CpuBackend:
    """`Backend` over `mjbatch.Batch`; its tensors are zero-copy views of the batch's own arrays."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_threads: int = 0) -> None:
        """`num_threads` 0 uses every logical CPU."""
        check_request(model, num_envs)
        self.model = model
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        self._batch = mjbatch.Batch(model, num_envs, num_threads)
        self._state = self._batch.bind("state")
        self._initial = self._state.copy()
        self._qpos_columns = _position_columns(model)
        self._fields: dict[str, Tensor] = {}
        self._expanded: dict[str, Tensor] = {}
        self._stepped = False

    def read(self, field: str) -> Tensor:
        if field not in self._fields:
            self._fields[field] = self._bind(field)
        return self._fields[field]

    def _bind(self, field: str) -> Tensor:
        try:
            return torch.from_numpy(self._batch.bind(field))
        except ValueError as error:
            raise unknown("mjData field", field, _array_names(mujoco.MjData(self.model))) from error

    def expand(self, field: str) -> Tensor:
        if field in self._expanded:
            return self._expanded[field]
        if self._stepped:
            raise KoboshiError(f"'{field}' must be expanded before the first step")
        try:
            self._expanded[field] = torch.from_numpy(self._batch.expand(field))
        except ValueError as error:
            valid = [*_array_names(self.model), *_array_names(self.model.opt), "timestep"]
            raise unknown("mjModel field", field, valid) from error
        return self._expanded[field]

    def world_geom_pos(self) -> list[Tensor]:
        return [self.expand("geom_pos")]

    def set_const(self, mask: Tensor | None = None) -> None:
        self._batch.set_const(_rows(mask))

    def rays(self, start: Tensor, direction: Tensor) -> Tensor:
        pnt, vec = (np.ascontiguousarray(each.double().numpy()) for each in (start, direction))
        distance = np.empty(pnt.shape[:2])
        self._batch.rays(pnt, vec, distance, geomgroup=_GROUP_0)
        return torch.from_numpy(distance).float()

    def step(self, n: int = 1) -> None:
        self._stepped = True
        self._batch.step(nstep=n)

    def forward(self, mask: Tensor | None = None) -> None:
        self._batch.forward(_rows(mask))

    def reset(self, mask: Tensor | None = None) -> None:
        # mjbatch's own reset would run mj_forward too, which the caller does anyway once all is placed, and put
        # what was written since the last call on top. The state is all that the next call starts from.
        rows = slice(None) if mask is None else mask.numpy()
        self._state[rows] = self._initial[rows]
        if "qpos0" in self._expanded:
            self._state[rows, self._qpos_columns] = self._expanded["qpos0"].numpy()[rows]

    def check(self) -> None:
        """Nothing to find: MuJoCo makes room as it needs it."""

    def snapshot(self) -> Tensor:
        return torch.from_numpy(self._state.copy())

    def restore(self, state: Tensor) -> None:
        self._state[:] = state.numpy()


def _position_columns(model: mujoco.MjModel) -> slice:
    """Where `qpos` lies in the state."""
    before = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_TIME)
    return slice(before, before + model.nq)


def _rows(mask: Tensor | None) -> np.ndarray | None:
    return None if mask is None else np.ascontiguousarray(mask.numpy())


def _array_names(holder: object) -> list[str]:
    names = [n for n in dir(holder) if not n.startswith(("_", "efc_", "iefc_"))]
    return [n for n in names if isinstance(getattr(holder, n), np.ndarray)]
