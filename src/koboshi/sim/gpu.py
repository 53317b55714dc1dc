"""MuJoCo on a GPU: MuJoCo Warp steps all simulations, on CUDA as a captured graph. Needs the extra `gpu`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from koboshi.devices import local_device
from koboshi.errors import KoboshiError, unknown
from koboshi.sim.backend import check_request

_STATE = (
    "time",
    "qpos",
    "qvel",
    "act",
    "history",
    "qacc_warmstart",
    "ctrl",
    "qfrc_applied",
    "xfrc_applied",
    "eq_active",
    "mocap_pos",
    "mocap_quat",
    "userdata",
)
"""The parts of mjSTATE_INTEGRATION, in its order."""

_OWN_LAYOUT = ("qLD", "qLDiagInv")
"""Data fields that Warp stores otherwise than MuJoCo under the same name."""

_DERIVED = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "tendon_length0",
    "tendon_lengthspring",
    "tendon_invweight0",
    "actuator_acc0",
    "meaninertia",
)
"""Model fields that `set_const` recomputes, of those that physics reads (not where cameras and lights look)."""

_FLUID = ("wind", "density", "viscosity")

_NOTHING_TO_DISABLE = int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE) | int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
"""Flags that Warp refuses although it does as they ask: it has no midphase and never resets by itself."""

_MOST_CONTACTS = 128
"""Contacts a simulation gets room for where its geoms would allow more; all simulations share the room."""

_TOO_SMALL = {
    "NEFC": "njmax",
    "NJMAX_NNZ": "njmax",
    "BROADPHASE": "nconmax",
    "NARROWPHASE": "nconmax",
    "CCD": "nconmax",
    "HFIELD": "mjMAXCONPAIR (contacts of one geom with a height field)",
}
"""Overflow that loses constraints -> what was too small. Others (solver iterations) MuJoCo accepts too."""


class WarpBackend:
    """`Backend` over MuJoCo Warp; its tensors are zero-copy views of Warp's arrays, float32, on `device`.

    Warp works on its default stream, which CUDA orders against torch's default stream; use no other here.
    `forward` with a mask computes all simulations, then puts back the state and the read fields of the rest.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        device: str = "cuda:0",
        nconmax: int | None = None,
        njmax: int | None = None,
    ) -> None:
        """`device`: "cuda" (this process's own), "cuda:0", … or "cpu".

        `nconmax`, `njmax`: room for contacts and constraint rows in one simulation; by default what the
        model's geoms and joints can need. `check` raises KoboshiError where a step needed more.
        """
        check_request(model, num_envs)
        self._wp, self._mjw = _import_warp()
        self._wp_device = _warp_device(self._wp, device)
        self.model = model
        self.num_envs = num_envs
        self.device = torch.device(self._wp.device_to_torch(self._wp_device))
        self._mjdata = mujoco.MjData(model)
        mujoco.mj_forward(model, self._mjdata)
        with self._wp.ScopedDevice(self._wp_device):
            self._put(nconmax, njmax)
        self._graphs: dict[tuple[str, int], Any] = {}
        self._compiled: set[str] = set()
        self._fields: dict[str, Tensor] = {}
        self._expanded: dict[str, Tensor] = {}
        self._stepped = False
        self._state = [self._wp.to_torch(getattr(self._data, name)) for name in _STATE]
        self._initial = [part.clone() for part in self._state]
        self._initial[_STATE.index("qacc_warmstart")].zero_()
        self._overflow = self._wp.to_torch(self._data.overflow)
        self._fatal = sum(int(self._mjw.OverflowType[name]) for name in _TOO_SMALL)

    def _put(self, nconmax: int | None, njmax: int | None) -> None:
        model = copy.copy(self.model)
        model.opt.disableflags &= ~_NOTHING_TO_DISABLE
        try:
            self._model = self._mjw.put_model(model)
        except NotImplementedError as error:
            raise KoboshiError(f"MuJoCo Warp cannot run this model: {error}") from error
        self._model.opt.warn_overflow = 0  # it prints from kernels; `check` raises instead
        contacts, rows = _capacity(self.model, self._model.nxn_geom_pair_filtered.numpy(), nconmax)
        self._room = {"nconmax": contacts, "njmax": rows if njmax is None else njmax}
        try:
            self._data = self._mjw.put_data(model, self._mjdata, nworld=self.num_envs, **self._room)
        except ValueError as error:
            raise KoboshiError(f"MuJoCo Warp: {error}") from error

    def read(self, field: str) -> Tensor:
        if field not in self._fields:
            valid = self._readable()
            if field not in valid:
                raise unknown("mjData field", field, valid)
            tensor = self._wp.to_torch(getattr(self._data, field))
            self._fields[field] = tensor.view(self.num_envs, *valid[field])
        return self._fields[field]

    def _readable(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of one simulation's field in MuJoCo's layout."""
        names = [f.name for f in dataclasses.fields(self._data) if _leading(f) == "nworld"]
        return self._same_size(self._mjdata, self._data, [n for n in names if n not in _OWN_LAYOUT])

    def expand(self, field: str) -> Tensor:
        if self._stepped and field not in self._expanded:
            raise KoboshiError(f"'{field}' must be expanded before the first step")
        return self._expand(field)

    def _expand(self, field: str) -> Tensor:
        """As `expand`, at any time."""
        if field not in self._expanded:
            valid: dict[str, tuple[int, ...]] = {}
            for part in ("", "opt", "stat"):
                source, target = ((getattr(m, part) if part else m) for m in (self.model, self._model))
                shapes = self._expandable(source, target)
                if field in shapes:
                    self._expanded[field] = self._replace(target, field).view(self.num_envs, *shapes[field])
                    return self._expanded[field]
                valid |= shapes
            raise unknown("mjModel field that MuJoCo Warp can vary", field, valid, "fields")
        return self._expanded[field]

    def _expandable(self, source: object, target: Any) -> dict[str, tuple[int, ...]]:
        names = [f.name for f in dataclasses.fields(target) if _leading(f) == "*"]
        if not self._model.has_fluid:  # Warp leaves the fluid kernels out of a model without fluid
            names = [n for n in names if n not in _FLUID]
        return self._same_size(source, target, names)

    def _same_size(self, source: object, target: Any, names: list[str]) -> dict[str, tuple[int, ...]]:
        """Those of `names` that MuJoCo has too and that hold as many numbers in each simulation."""
        shapes = {}
        for name in names:
            array = getattr(target, name)
            if hasattr(source, name) and array is not None:
                value = np.asarray(getattr(source, name))
                each = int(np.prod(array.shape[1:])) * self._wp.types.type_size(array.dtype)
                if value.size == each:
                    shapes[name] = value.shape
        return shapes

    def _replace(self, target: Any, field: str) -> Tensor:
        """Gives a model field one row a simulation where it had one for all."""
        shared = getattr(target, field)
        values = np.repeat(shared.numpy()[:1], self.num_envs, axis=0)
        array = self._wp.array(values, dtype=shared.dtype, device=self._wp_device)
        setattr(target, field, array)
        self._graphs.clear()  # they hold the old array's address
        return self._wp.to_torch(array)

    def world_geom_pos(self) -> list[Tensor]:
        """Warp works out where the world's geoms are when its data are made, and never again."""
        return [self.expand("geom_pos"), self.read("geom_xpos")]

    def set_const(self, mask: Tensor | None = None) -> None:
        """Recomputes the fields of `_DERIVED` in all simulations, which have a row each from the first call on."""
        for name in _DERIVED:
            if np.size(getattr(self.model, name, 1)):
                self._expand(name)
        read = list(self._fields.values())
        before = [tensor.clone() for tensor in read]
        self._run(self._mjw.set_const)
        for tensor, old in zip(read, before, strict=True):
            tensor.copy_(old)

    def rays(self, start: Tensor, direction: Tensor) -> Tensor:
        wp, shape = self._wp, tuple(start.shape[:2])
        with wp.ScopedDevice(self._wp_device):
            pnt, vec = (wp.from_torch(each.float().contiguous(), dtype=wp.vec3) for each in (start, direction))
            distance, geom = wp.empty(shape, dtype=float), wp.empty(shape, dtype=int)
            normal, nobody = wp.empty(shape, dtype=wp.vec3), wp.full(shape[1], -1, dtype=int)
            group = wp.types.vector(length=6, dtype=float)(1, 0, 0, 0, 0, 0)
            self._mjw.rays(self._model, self._data, pnt, vec, group, True, nobody, distance, geom, normal)
        return wp.to_torch(distance).clone()

    def step(self, n: int = 1) -> None:
        self._stepped = True
        self._run(self._mjw.step, n)

    def forward(self, mask: Tensor | None = None) -> None:
        if mask is None:
            self._run(self._mjw.forward)
            return
        tensors = [*self._state, *self._fields.values()]
        before = [tensor.clone() for tensor in tensors]
        self._run(self._mjw.forward)
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(torch.where(_align(mask, tensor), tensor, old))

    def reset(self, mask: Tensor | None = None) -> None:
        initial = dict(zip(_STATE, self._initial, strict=True))
        if "qpos0" in self._expanded:
            initial["qpos"] = self._expanded["qpos0"]
        for name, part in zip(_STATE, self._state, strict=True):
            part.copy_(initial[name] if mask is None else torch.where(_align(mask, part), initial[name], part))

    def check(self) -> None:
        """KoboshiError where contacts or constraint rows did not fit, which were then left out."""
        lost = self._overflow & self._fatal
        if not bool(lost.any()):
            return
        env = int(lost.nonzero()[0])
        flags = self._mjw.OverflowType(int(lost[env]))
        self._overflow.zero_()
        fields = {_TOO_SMALL[flag.name] for flag in flags}
        room = ", ".join(f"{n}={self._room[n]}" if n in self._room else n for n in sorted(fields))
        raise KoboshiError(f"MuJoCo Warp ran out of room in simulation {env}: {room} is too small")

    def snapshot(self) -> Tensor:
        return torch.cat([part.reshape(self.num_envs, -1).float() for part in self._state], dim=1)

    def restore(self, state: Tensor) -> None:
        widths = [part[0].numel() for part in self._state]
        for part, values in zip(self._state, state.split(widths, dim=1), strict=True):
            part.copy_(values.reshape(part.shape))

    def _run(self, function: Callable[[Any, Any], None], n: int = 1) -> None:
        """n calls. The first time compiles the kernels; on CUDA, later ones launch one captured graph of all n."""
        key = (function.__name__, n)
        with self._wp.ScopedDevice(self._wp_device):
            if key not in self._graphs and function.__name__ in self._compiled and self._can_capture():
                with self._wp.ScopedCapture() as capture:
                    self._repeat(function, n)
                self._graphs[key] = capture.graph
            if key in self._graphs:
                self._wp.capture_launch(self._graphs[key])
            else:
                self._repeat(function, n)
                self._compiled.add(function.__name__)

    def _repeat(self, function: Callable[[Any, Any], None], n: int) -> None:
        for _ in range(n):
            function(self._model, self._data)

    def _can_capture(self) -> bool:
        """Steps allocate work arrays, which a graph may do only from the memory pool."""
        return self._wp_device.is_cuda and self._wp.is_mempool_enabled(self._wp_device)


def _import_warp() -> tuple[ModuleType, ModuleType]:
    try:
        import mujoco_warp
        import warp
    except ModuleNotFoundError as error:
        raise KoboshiError("MuJoCo Warp is not installed: pip install 'koboshi[gpu]'") from error
    warp.config.log_level = max(warp.config.log_level, warp.LOG_WARNING)  # no line for each kernel module
    return warp, mujoco_warp


def _warp_device(wp: ModuleType, device: str) -> Any:
    valid = [d.alias for d in wp.get_devices()]
    if device == "cuda" and wp.is_cuda_available():
        device = str(local_device(device))
    if device not in valid:
        raise unknown("device for MuJoCo Warp", device, valid, "devices")
    return wp.get_device(device)


def _leading(field: dataclasses.Field[Any]) -> object:
    """The name of an array field's first dimension; None where it is no array."""
    shape = getattr(field.type, "shape", ())
    return shape[0] if isinstance(shape, tuple) and shape else None


def _align(mask: Tensor, tensor: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (tensor.ndim - 1))


def _capacity(model: mujoco.MjModel, pairs: np.ndarray, nconmax: int | None) -> tuple[int, int]:
    """(contacts, constraint rows) that one simulation may need; `pairs` (P, 2): the geoms that may touch.

    A pyramidal contact of dimension d has 2 (d − 1) rows; a dof or tendon may add a friction and a limit row.
    """
    if nconmax is None:
        most = sum(_pair_contacts(*model.geom_type[pair]) for pair in pairs)
        nconmax = max(min(most, _MOST_CONTACTS), 1)
    condim = max([1, *model.geom_condim, *model.pair_dim])
    rows = 2 * (model.nv + model.ntendon) + 6 * model.neq + nconmax * max(1, 2 * (condim - 1))
    return nconmax, int(rows)


def _pair_contacts(type1: int, type2: int) -> int:
    """Contacts that two geoms of these types can have at most (a height field's more, in rare corners)."""
    geom = mujoco.mjtGeom
    types = {int(type1), int(type2)}
    if int(geom.mjGEOM_HFIELD) in types:
        return 8
    if types & {int(geom.mjGEOM_SPHERE), int(geom.mjGEOM_ELLIPSOID)}:
        return 1
    return 2 if int(geom.mjGEOM_CAPSULE) in types else 8
