"""The scene that is stepped: a robot, the ground under it, and other bodies."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from koboshi.envs.cfg import BodyCfg, SceneCfg, SimCfg
from koboshi.errors import unknown
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


class Scene:
    """Where N environments are and what stands in them.

    model: the compiled template. origins (N, 3): where each environment begins, on the ground, m. The base's
    height, the feet's and every termination are measured above the ground under them, by `height`.
    """

    def __init__(self, cfg: SceneCfg, robot: Robot, sim: SimCfg) -> None:
        self._bodies = _present(cfg)
        self.ground = cfg.ground.build()
        self.model = self._build(robot, sim)
        self.origins = torch.zeros(0, 3)

    def _build(self, robot: Robot, sim: SimCfg) -> mujoco.MjModel:
        """MuJoCo's own reset at NaN is off: the environment detects, counts and resets instead."""
        spec = physics_spec(robot)
        _add_surroundings(spec, self.ground, self._bodies)
        spec.option.timestep = sim.timestep
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.iterations, spec.option.ls_iterations = sim.iterations, sim.ls_iterations
        spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        return spec.compile()

    def attach(self, backend: Backend) -> None:
        """Lays the environments out and reads where the other bodies are."""
        self.origins = self.ground.origins(backend.num_envs, backend.device)
        if self._bodies:
            self._xpos = backend.read("xpos")

    def height(self, points: Tensor) -> Tensor:
        """(…, ≥ 2) world points -> (…) height of the ground under them, m."""
        return self.ground.height(points)

    def body_pos(self, name: str) -> Tensor:
        """(N, 3) where another body is in the world, m; one physics step behind, as all derived fields."""
        if name not in self._bodies:
            raise unknown("body of the scene", name, self._bodies, "bodies")
        return self._xpos[:, self.model.body(name).id].float()


def visual_scene(cfg: SceneCfg, robot: Robot) -> mujoco.MjSpec:
    """What a `Scene` steps, to look at: the robot as published and what surrounds it, with the same `qpos`.

    Mocap bodies have no `qpos`: drawn from it alone they stay where they begin.
    """
    spec = visual_spec(robot)
    _add_surroundings(spec, cfg.ground.build(), _present(cfg))
    return spec


def _present(cfg: SceneCfg) -> dict[str, BodyCfg]:
    return {name: body for name, body in cfg.bodies.items() if body is not None}


def _add_surroundings(spec: mujoco.MjSpec, ground: Ground, bodies: dict[str, BodyCfg]) -> None:
    ground.add_to(spec)
    origin = ground.origins(1, torch.device("cpu"))[0].tolist()
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
