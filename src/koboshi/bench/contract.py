"""What every physics backend must do, as a few checks that need no test suite: MuJoCo itself is the reference."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import torch

from koboshi.sim import Backend, make_backend

LEG = """
<mujoco>
  <option timestep="0.005" integrator="implicitfast"/>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body name="base" pos="0 0 0.251">
      <freejoint/>
      <geom type="box" size=".1 .1 .05" mass="2"/>
      <body pos="0 0 -.05">
        <joint name="hip" axis="0 1 0" damping=".2" armature=".02"/>
        <geom type="capsule" fromto="0 0 0 0 0 -.17" size=".03" mass=".5"/>
      </body>
    </body>
  </worldbody>
  <actuator><position joint="hip" kp="20" kv="1" forcerange="-10 10"/></actuator>
</mujoco>
"""
"""One leg, a millimetre above the ground: it falls, touches and tips."""
HEIGHT = 2
"""Where the leg's height lies in its qpos."""
SIMULATIONS, STEPS = 4, 8
TOLERANCE = 2e-4
"""Largest difference of a float32 backend from MuJoCo after STEPS, in m, rad and their rates / 50."""

Check = Callable[[Backend], float]
"""Gives the largest difference from what must be, to be at most TOLERANCE."""


def _controls(backend: Backend, seed: int = 0) -> torch.Tensor:
    """(N, nu) targets, the same for every backend."""
    generator = torch.Generator().manual_seed(seed)
    ctrl = backend.read("ctrl")
    return (0.5 * torch.rand(ctrl.shape, generator=generator)).to(ctrl.device, ctrl.dtype)


def _mask(backend: Backend, *chosen: int) -> torch.Tensor:
    mask = torch.zeros(backend.num_envs, dtype=torch.bool, device=backend.device)
    mask[list(chosen)] = True
    return mask


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double().cpu() - b.double().cpu()).abs().max())


def steps_as_mujoco_does(backend: Backend) -> float:
    """Each simulation follows `mj_step` on its own."""
    controls = _controls(backend)
    backend.read("ctrl").copy_(controls)
    backend.step(STEPS)
    data = mujoco.MjData(backend.model)
    worst = 0.0
    for i in range(backend.num_envs):
        mujoco.mj_resetData(backend.model, data)
        data.ctrl[:] = controls[i].cpu().numpy()
        mujoco.mj_step(backend.model, data, STEPS)
        reached = torch.from_numpy(np.concatenate([data.qpos, data.qvel / 50]))
        worst = max(worst, _difference(torch.cat([backend.read("qpos")[i], backend.read("qvel")[i] / 50]), reached))
    return worst


def resets_alone(backend: Backend) -> float:
    """A reset of some simulations leaves the others as they were."""
    start = backend.read("qpos").clone()
    backend.step(STEPS)
    moved = backend.read("qpos").clone()
    backend.reset(_mask(backend, 1))
    wanted = moved.clone()
    wanted[1] = start[1]
    return _difference(backend.read("qpos"), wanted)


def comes_back(backend: Backend) -> float:
    """A snapshot put back leads to where it led before."""
    backend.read("ctrl").copy_(_controls(backend))
    backend.step(STEPS)
    state = backend.snapshot()
    backend.step(STEPS)
    first = backend.read("qpos").clone()
    backend.restore(state)
    backend.step(STEPS)
    return _difference(backend.read("qpos"), first)


def varies_alone(backend: Backend) -> float:
    """A model field that is varied in one simulation acts in that one: it feels no gravity, and hangs."""
    backend.expand("gravity")[0] = 0.0
    height = backend.read("qpos")[:, HEIGHT].clone()
    backend.step(STEPS)
    fallen = (height - backend.read("qpos")[:, HEIGHT]).double().cpu()
    return float(fallen[0].abs()) if bool((fallen[1:] > 1e-4).all()) else float("inf")


CHECKS: dict[str, Check] = {f.__name__: f for f in (steps_as_mujoco_does, resets_alone, comes_back, varies_alone)}


def run_checks(backend: str, device: str) -> dict[str, float]:
    """Check -> its difference. AssertionError naming those that exceed TOLERANCE."""
    model = mujoco.MjModel.from_xml_string(LEG)
    found = {name: check(make_backend(backend, model, SIMULATIONS, device)) for name, check in CHECKS.items()}
    wrong = {name: difference for name, difference in found.items() if not difference <= TOLERANCE}
    assert not wrong, f"{backend} on {device} differs by more than {TOLERANCE}: {wrong}"
    return found
