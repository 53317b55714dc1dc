"""The scene that is stepped: a robot, the ground under it, and other bodies."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from koboshi.envs.cfg import BodyCfg, SceneCfg, SimCfg
from koboshi.envs.levels import Levels, WindowView
from koboshi.errors import KoboshiError, unknown
from koboshi.robots import Robot, physics_spec, visual_spec
from koboshi.robots.model import BODY, GROUND
from koboshi.sim import Backend
from koboshi.terrain import Ground

_SHAPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
}

_FAR = 10.0
"""What a ray says that meets nothing, m."""


class Scene:
    """Where N environments are and what stands in them.

    spec, model: the template, and compiled. levels: where each environment begins. The base's height, the feet's and
    every termination are measured above the ground under them, by `height`.
    """

    levels: Levels

    def __init__(self, cfg: SceneCfg, robot: Robot, sim: SimCfg, delay: int = 0) -> None:
        """`delay`: how many physics steps late actuators may get their targets."""
        self._bodies = _present(cfg)
        self.ground = cfg.ground.build()
        self.spec = physics_spec(robot, cfg.contacts)
        self.model = self._build(self.spec, sim, delay)
        self._window: WindowView | None = None
        self._grids: dict[tuple[float, ...], tuple[Tensor, Tensor]] = {}

    def _build(self, spec: mujoco.MjSpec, sim: SimCfg, delay: int) -> mujoco.MjModel:
        """MuJoCo's own reset at NaN is off: the environment detects, counts and resets instead."""
        self.ground.add_to(spec)
        _add_bodies(spec, self.ground, self._bodies)
        spec.option.timestep = sim.timestep
        if delay:
            _hold_back(spec, delay, sim.timestep)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.iterations, spec.option.ls_iterations = sim.iterations, sim.ls_iterations
        spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        return spec.compile()

    def attach(self, backend: Backend) -> None:
        """Lays the environments out and reads where the other bodies are."""
        self.levels = Levels(self.ground, backend.num_envs, backend.device)
        if self.ground.windows is not None:
            self._window = WindowView(self.ground.windows, backend)
        if self._bodies:
            self._xpos = backend.read("xpos")

    @property
    def origins(self) -> Tensor:
        """(N, 3) where each environment begins its next episode, on the ground, m."""
        return self.levels.origins

    def walked(self, base_pos: Tensor) -> Tensor:
        """(N,) how far bases at `base_pos` (N, 3), world, are from their origins, in the plane, m."""
        return (base_pos - self.origins)[:, :2].norm(dim=1)

    def follow(self, points: Tensor, mask: Tensor | None = None) -> None:
        """The ground around robots at `points` (N, ≥ 2), world, becomes part of their physics; `mask`: of these."""
        if self._window is not None:
            self._window.show(self.ground.tile_of(points), mask)

    def height(self, points: Tensor) -> Tensor:
        """(…, ≥ 2) world points -> (…) height of the ground under them, m."""
        return self.ground.height(points[..., 0], points[..., 1])

    def scan(self, centre: Tensor, heading: Tensor, size: tuple[float, float], resolution: float) -> Tensor:
        """(…, P) height of the ground under a grid of points about each `centre` (…, ≥ 2), turned by `heading` (…).

        Points are `resolution` apart and `size` long along x, wide along y, m; x grows slowest.
        """
        return self.ground.height(*self._under(centre, heading, size, resolution))

    def ray_scan(
        self, backend: Backend, centre: Tensor, heading: Tensor, size: tuple[float, float], resolution: float
    ) -> Tensor:
        """(N, P) how far each `centre` (N, 3) is above what rays from 1 m above it meet under such points."""
        x, y = self._under(centre, heading, size, resolution)
        start = torch.stack((x, y, (centre[:, 2:] + 1).expand_as(x)), -1)
        distance = backend.rays(start, torch.tensor([0.0, 0.0, -1.0], device=x.device).expand_as(start))
        return torch.where(distance < 0, _FAR, distance - 1).clamp(max=_FAR)

    def _under(
        self, centre: Tensor, heading: Tensor, size: tuple[float, float], resolution: float
    ) -> tuple[Tensor, Tensor]:
        """(…, P) world x and (…, P) y of a scan's points."""
        x, y = self._points(size, resolution)
        cos, sin = heading.cos()[..., None], heading.sin()[..., None]
        return centre[..., :1] + cos * x - sin * y, centre[..., 1:2] + sin * x + cos * y

    def _points(self, size: tuple[float, float], resolution: float) -> tuple[Tensor, Tensor]:
        key = (*size, resolution)
        if key not in self._grids:
            lines = [torch.linspace(-s / 2, s / 2, n) for s, n in zip(size, counts(size, resolution), strict=True)]
            x, y = (each.flatten().to(self.levels.level.device) for each in torch.meshgrid(*lines, indexing="ij"))
            self._grids[key] = x, y
        return self._grids[key]

    def state_dict(self) -> dict[str, Tensor]:
        window = {} if self._window is None else self._window.state_dict()
        return self.levels.state_dict() | window

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.levels.load_state_dict(state)
        if self._window is not None:
            self._window.load_state_dict(state)

    def body_pos(self, name: str) -> Tensor:
        """(N, 3) where another body is in the world, m; one physics step behind, as all derived fields."""
        if name not in self._bodies:
            raise unknown("body of the scene", name, self._bodies, "bodies")
        return self._xpos[:, self.model.body(name).id].float()


def counts(size: tuple[float, float], resolution: float) -> tuple[int, int]:
    """Points of a scan along x and along y; KoboshiError where they do not fill it."""
    found = [round(s / resolution) if resolution > 0 else 0 for s in size]
    if any(abs(n * resolution - s) > 1e-6 for n, s in zip(found, size, strict=True)):
        raise KoboshiError(f"a scan of {size[0]} by {size[1]} m has no points {resolution} m apart")
    return found[0] + 1, found[1] + 1


def visual_scene(cfg: SceneCfg, robot: Robot) -> mujoco.MjSpec:
    """What a `Scene` steps, to look at: the robot as published and what surrounds it, with the same `qpos`.

    Mocap bodies have no `qpos`: drawn from it alone they stay where they begin.
    """
    spec, ground = visual_spec(robot), cfg.ground.build()
    ground.draw_on(spec)
    _add_bodies(spec, ground, _present(cfg))
    return spec


def _present(cfg: SceneCfg) -> dict[str, BodyCfg]:
    return {name: body for name, body in cfg.bodies.items() if body is not None}


def _hold_back(spec: mujoco.MjSpec, steps: int, timestep: float) -> None:
    """Lets each actuator get its control up to so many physics steps late; KoboshiError where it has its own delay."""
    for actuator in spec.actuators:
        if actuator.delay or actuator.nsample or actuator.interp:
            raise KoboshiError(f"actuator '{actuator.name}' has a delay in its model; env.actions.delay would undo it")
        actuator.nsample, actuator.delay = steps, steps * timestep


def _add_bodies(spec: mujoco.MjSpec, ground: Ground, bodies: dict[str, BodyCfg]) -> None:
    origin = ground.starts[0, 0].tolist()
    for name, body in bodies.items():
        _add_body(spec, name, body, [a + b for a, b in zip(origin, body.pos, strict=True)])


def _add_body(spec: mujoco.MjSpec, name: str, cfg: BodyCfg, pos: list[float]) -> None:
    """pos: in the world, m."""
    body = spec.worldbody.add_body(name=name, pos=pos, mocap=cfg.motion == "mocap")
    if cfg.motion == "free":
        body.add_freejoint()
    size = (*cfg.size, 0.0, 0.0, 0.0)[:3]
    kinds = (GROUND, BODY) if cfg.collides else (0, 0)
    if cfg.collides and cfg.motion == "free":
        kinds = (GROUND | BODY, GROUND | BODY)
    body.add_geom(
        type=_SHAPES[cfg.shape], size=size, rgba=cfg.rgba, mass=cfg.mass, contype=kinds[0], conaffinity=kinds[1]
    )
