"""The model that is stepped: a robot on flat ground, with the solver's settings."""

from __future__ import annotations

import mujoco

from koboshi.envs.cfg import SimCfg
from koboshi.robots import Robot, physics_spec


def build_model(robot: Robot, sim: SimCfg) -> mujoco.MjModel:
    """Robot and floor. MuJoCo's own reset at NaN is off: the environment detects, counts and resets instead."""
    spec = physics_spec(robot)
    plane = mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(name="floor", type=plane, size=(0, 0, 1), contype=1, conaffinity=0)
    spec.option.timestep = sim.timestep
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.iterations, spec.option.ls_iterations = sim.iterations, sim.ls_iterations
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return spec.compile()
