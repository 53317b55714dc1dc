"""One contract for both backends, mjbatch and MuJoCo Warp, against serial `mj_step`.

MuJoCo Warp is tested on the device that KOBOSHI_TEST_DEVICE names, without it on its CPU device.
"""

import os
import sys
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
import torch

from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1, physics_spec
from koboshi.sim import Backend, CpuBackend, anyone, make_backend, make_generator, rows_of

N = 3
DEVICES = {"cpu": "cpu", "warp": os.environ.get("KOBOSHI_TEST_DEVICE", "cpu")}
TOLERANCE = {"cpu": 0.0, "warp": 2e-4}

LEG = """
<mujoco>
  <option timestep="0.005" integrator="implicitfast"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>
    <body name="base" pos="0 0 0.62">
      <freejoint/>
      <geom type="box" size=".15 .15 .05" mass="3" contype="0" conaffinity="0"/>
      <body name="thigh">
        <joint name="hip" axis="0 1 0" range="-2 2" damping=".5" armature=".05"/>
        <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".03" mass="1" contype="0" conaffinity="0"/>
        <body name="shank" pos="0 0 -.3">
          <joint name="knee" axis="0 1 0" range="-2 2" damping=".5" armature=".05"/>
          <geom type="capsule" fromto="0 0 0 0 0 -.27" size=".03" mass=".6"/>
          <site name="foot" type="sphere" size=".1" pos="0 0 -.27"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="hip" joint="hip" kp="60" kv="2" forcerange="-20 20"/>
    <position name="knee" joint="knee" kp="60" kv="2" forcerange="-20 20"/>
  </actuator>
  <sensor>
    <touch site="foot"/>
    <framepos objtype="site" objname="foot"/>
    <framelinvel objtype="site" objname="foot"/>
  </sensor>
</mujoco>
"""


@pytest.fixture(params=["cpu", "warp"])
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """The backend's; the test's own tensors lie on its device."""
    with torch.device(DEVICES[request.param]):
        yield request.param


@pytest.fixture
def backend(name: str) -> Backend:
    return make_backend(name, mujoco.MjModel.from_xml_string(LEG), N, DEVICES[name])


def controls(steps: int, nu: int) -> torch.Tensor:
    """(steps, N, nu) the same for every backend, representable in float32."""
    drawn = torch.randn(steps, N, nu, generator=torch.Generator().manual_seed(0), device="cpu") * 0.4
    return drawn.to(torch.get_default_device())


def assert_close(name: str, actual: torch.Tensor, expected: np.ndarray) -> None:
    tolerance = TOLERANCE[name]
    np.testing.assert_allclose(actual.double().cpu().numpy(), expected, rtol=tolerance, atol=tolerance)


def test_is_a_backend(name: str, backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert backend.num_envs == N
    assert backend.device == torch.device(DEVICES[name])
    assert backend.read("xmat").shape == (N, 4, 9)
    assert backend.expand("actuator_forcerange").shape == (N, 2, 2)
    assert backend.expand("gravity").shape == (N, 3)


def test_steps_and_derived_fields_equal_serial_mj_step(name: str, backend: Backend) -> None:
    """Including the lag: after `mj_step`, sensordata belongs to the state one substep before."""
    steps, ctrl = 20, controls(20, 2)
    fields = ("qpos", "qvel", "sensordata", "actuator_force", "xpos", "xmat")
    views = {field: backend.read(field) for field in fields}
    for action in ctrl:
        backend.read("ctrl")[:] = action
        backend.step()
    for env in range(N):
        data = mujoco.MjData(backend.model)
        for step in range(steps):
            data.ctrl[:] = ctrl[step, env].cpu().numpy()
            before = data.qpos.copy()
            mujoco.mj_step(backend.model, data)
        for field in fields:
            scale = max(1.0, abs(getattr(data, field)).max())
            assert_close(name, views[field][env] / scale, getattr(data, field) / scale)
        old = mujoco.MjData(backend.model)
        old.qpos[:] = before
        mujoco.mj_forward(backend.model, old)
        assert_close(name, views["sensordata"][env, 1:4], old.sensordata[1:4])
    assert views["sensordata"][:, 0].max() > 0, "no foot ever touched the ground: the test says nothing"


def test_forward_makes_derived_fields_current(name: str, backend: Backend) -> None:
    sensors, qpos = backend.read("sensordata"), backend.read("qpos")
    backend.step(3)
    lagging = sensors.clone()
    backend.forward(torch.tensor([True, False, True]))
    assert not torch.equal(sensors[0], lagging[0])
    assert torch.equal(sensors[1], lagging[1])
    data = mujoco.MjData(backend.model)
    data.qpos[:] = qpos[0].double().cpu().numpy()
    mujoco.mj_forward(backend.model, data)
    assert_close(name, sensors[0, 1:4], data.sensordata[1:4])


def test_views_are_live(backend: Backend) -> None:
    qpos = backend.read("qpos")
    assert backend.read("qpos") is qpos
    qpos[1, 2] = 5.0
    backend.step(2)
    heights = qpos[:, 2]
    fall = 9.81 * 0.005**2 * (1 + 2)  # semi-implicit Euler: g dt² after one step, three times that after two
    assert heights[1].item() == pytest.approx(5.0 - fall, abs=1e-5)
    assert heights[0].item() == pytest.approx(0.62 - fall, abs=1e-5)


def test_expanded_field_acts_on_its_own_simulation(backend: Backend) -> None:
    limits, force = backend.expand("actuator_forcerange"), backend.read("actuator_force")
    assert torch.equal(limits, torch.tensor([-20.0, 20.0], dtype=limits.dtype).expand(N, 2, 2))
    assert backend.expand("actuator_forcerange") is limits
    limits[1, 0] = 0.0
    backend.read("ctrl")[:] = 1.0
    backend.step()
    assert force[1, 0] == 0.0
    assert force[1, 1] == force[0, 1] == 20.0
    assert force[0, 0] == force[2, 0] == 20.0
    limits[1, 0] = limits[0, 0]
    backend.reset()
    backend.read("ctrl")[:] = 1.0
    backend.step()
    assert (force == 20.0).all()


def test_expand_is_refused_after_the_first_step(backend: Backend) -> None:
    backend.step()
    with pytest.raises(KoboshiError, match="'body_mass' must be expanded before the first step"):
        backend.expand("body_mass")


def test_unknown_fields_name_a_guess(backend: Backend) -> None:
    with pytest.raises(KoboshiError, match="no mjData field 'qposs'; did you mean 'qpos'?"):
        backend.read("qposs")
    with pytest.raises(KoboshiError, match="'efc_J'"):
        backend.read("efc_J")
    with pytest.raises(KoboshiError, match="'bdy_mass'; did you mean 'body_mass'?"):
        backend.expand("bdy_mass")


def test_reset_touches_only_its_mask(backend: Backend) -> None:
    fields = [backend.read(field) for field in ("qpos", "qvel", "ctrl", "time", "sensordata")]
    start = backend.snapshot()
    for action in controls(5, 2):
        fields[2][:] = action
        backend.step()
    before, moved = backend.snapshot(), [field.clone() for field in fields]
    fields[0][1] = fields[2][1] = 7.0  # written since the last call: dropped too
    second = torch.tensor([False, True, False])
    backend.reset(second)
    backend.forward(second)
    assert fields[-1][1, 3].item() == pytest.approx(0.62 - 0.3 - 0.27, abs=1e-6)
    after = backend.snapshot()
    assert torch.equal(after[1], start[1])
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    for field, value in zip(fields, moved, strict=True):
        assert torch.equal(field[[0, 2]], value[[0, 2]])
    backend.reset()
    assert torch.equal(backend.snapshot(), start)


def test_a_reset_simulation_starts_like_a_new_one(name: str, backend: Backend) -> None:
    """Also out of NaN, and whatever was placed after the reset is what it starts from."""
    new = make_backend(name, backend.model, N, DEVICES[name])
    first = torch.tensor([True, False, False])
    for one in (backend, new):
        one.read("sensordata"), one.read("actuator_force")
    backend.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    backend.read("qpos")[0] = torch.nan
    backend.step(2)
    backend.reset(first)
    for one in (backend, new):
        one.read("qpos")[0, 2] = 0.57
        one.forward(first)
    for field in ("sensordata", "actuator_force"):
        assert torch.equal(backend.read(field)[0], new.read(field)[0])
    for one in (backend, new):
        one.step(10)
    assert torch.equal(backend.snapshot()[0, 1:], new.snapshot()[0, 1:])
    assert torch.isfinite(backend.read("qpos")).all()


def test_reset_follows_an_expanded_qpos0(backend: Backend) -> None:
    backend.expand("qpos0")[2, 7] = 0.25
    backend.step(2)
    backend.reset()
    assert backend.read("qpos")[:, 7].tolist() == [0.0, 0.0, 0.25]


def test_no_mask_set_does_nothing(backend: Backend) -> None:
    sensors, mass = backend.read("sensordata"), backend.expand("body_mass")
    backend.step(3)
    mass *= 2
    before, sensed = backend.snapshot(), sensors.clone()
    nobody = torch.zeros(N, dtype=torch.bool)
    backend.reset(nobody)
    backend.forward(nobody)
    backend.set_const(nobody)
    assert torch.equal(backend.snapshot(), before)
    assert torch.equal(sensors, sensed)


def test_a_restored_snapshot_continues_with_the_same_numbers(backend: Backend) -> None:
    def go(actions: torch.Tensor) -> torch.Tensor:
        for action in actions:
            backend.read("ctrl")[:] = action
            backend.step()
        return torch.cat([backend.snapshot(), backend.read("sensordata")], dim=1)

    backend.read("sensordata")
    actions = controls(20, 2)
    go(actions[:10])
    snapshot = backend.snapshot()
    first = go(actions[10:])
    assert not torch.equal(first[:, : snapshot.shape[1]], snapshot)
    backend.restore(snapshot)
    assert torch.equal(backend.snapshot(), snapshot)
    assert torch.equal(go(actions[10:]), first)


def test_n_substeps_equal_n_steps(backend: Backend) -> None:
    backend.read("ctrl")[:] = controls(1, 2)[0]
    start = backend.snapshot()
    backend.step(12)
    at_once = backend.snapshot()
    backend.restore(start)
    for _ in range(12):
        backend.step()
    assert torch.equal(backend.snapshot(), at_once)


def test_no_environments_are_refused(name: str) -> None:
    with pytest.raises(KoboshiError, match="at least 1, not 0"):
        make_backend(name, mujoco.MjModel.from_xml_string(LEG), 0)


def test_unknown_backend() -> None:
    with pytest.raises(KoboshiError, match="no physics backend 'wrap'; did you mean 'warp'?"):
        make_backend("wrap", mujoco.MjModel.from_xml_string(LEG), 1)


def test_cpu_equals_serial_mj_step_bit_for_bit_on_h1() -> None:
    spec = physics_spec(UNITREE_H1)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1))
    model = spec.compile()
    backend = CpuBackend(model, N, num_threads=2)
    qpos, sensors = backend.read("qpos"), backend.read("sensordata")
    qpos[:, 2] = UNITREE_H1.base_height
    start, ctrl = qpos.clone(), controls(100, model.nu).double()
    for action in ctrl:
        backend.read("ctrl")[:] = action
        backend.step()
    for env in range(N):
        data = mujoco.MjData(model)
        data.qpos[:] = start[env].numpy()
        for action in ctrl[:, env]:
            data.ctrl[:] = action.numpy()
            mujoco.mj_step(model, data)
        assert np.array_equal(qpos[env].numpy(), data.qpos)
        assert np.array_equal(backend.read("qvel")[env].numpy(), data.qvel)
        assert np.array_equal(sensors[env].numpy(), data.sensordata)


def test_set_const_follows_a_mass(name: str, backend: Backend) -> None:
    """What the model knows and how it moves are serial MuJoCo's; before it, the model keeps what was compiled."""
    mass, subtree = backend.expand("body_mass"), backend.expand("body_subtreemass")
    armature, xpos = backend.expand("dof_armature"), backend.read("xpos")
    second = torch.tensor([False, True, False])
    mass[1, 1], armature[1, 6:] = 10.0, 0.2
    start, seen = backend.snapshot(), xpos.clone()
    assert subtree[:, 1].tolist() == pytest.approx([4.6, 4.6, 4.6])
    backend.set_const(second)
    assert subtree[:, 1].tolist() == pytest.approx([4.6, 11.6, 4.6])
    assert torch.equal(backend.snapshot(), start), "the simulations moved"
    assert torch.equal(xpos, seen)
    mass[1, 1] = 12.0
    backend.set_const(second)  # the second time as the first
    assert subtree[:, 1].tolist() == pytest.approx([4.6, 13.6, 4.6])
    mass[1, 1] = 10.0
    backend.set_const()
    for action in controls(40, 2):
        backend.read("ctrl")[:] = action
        backend.step()
    heavy, stale = serial(1, set_const=True), serial(1, set_const=False)
    assert_close(name, backend.read("qpos")[0], serial(0, set_const=False))
    assert_close(name, backend.read("qpos")[1], heavy)
    assert abs(heavy - stale).max() > 10 * TOLERANCE["warp"], "set_const changes too little to say anything"


def serial(env: int, set_const: bool) -> np.ndarray:
    """`qpos` in MuJoCo after the same controls; 1 is heavier than the compiled model."""
    model = mujoco.MjModel.from_xml_string(LEG)
    data = mujoco.MjData(model)
    if env:
        model.body_mass[1], model.dof_armature[6:] = 10.0, 0.2
    if set_const:
        mujoco.mj_setConst(model, data)
        mujoco.mj_resetData(model, data)
    for action in controls(40, 2)[:, env]:
        data.ctrl[:] = action.cpu().numpy()
        mujoco.mj_step(model, data)
    return data.qpos.copy()


def test_each_simulation_has_its_own_delay_and_a_history_that_can_be_written(name: str) -> None:
    """0, 1 and 3 steps late; what is in force before the first control comes through is what was put there."""
    spec = mujoco.MjSpec.from_string(LEG)
    for actuator in spec.actuators:
        actuator.gaintype, actuator.biastype, actuator.gainprm[0] = 0, 0, 1.0  # the control is the torque
        actuator.delay, actuator.nsample = 0.015, 3
    model = spec.compile()
    backend = make_backend(name, model, N, DEVICES[name])
    delay, history, torque = backend.expand("actuator_delay"), backend.read("history"), backend.read("actuator_force")
    late = torch.tensor([0, 1, 3])
    delay[:] = ((late - 0.5) * 0.005).clamp(min=0)[:, None].to(delay.dtype)
    backend.reset()
    past = [int(model.actuator_historyadr[1]) + 2 + 3 + i for i in range(3)]
    history[:, past] = 9.0
    for step in range(6):
        backend.read("ctrl")[:] = 1.0 + step
        backend.step()
        expected = torch.where(late <= step, 1.0 + step - late, 9.0)
        torch.testing.assert_close(torque[:, 1].float(), expected.float())
    saved = backend.snapshot()
    backend.step(2)
    after = torque.clone()
    backend.restore(saved)
    backend.step(2)
    assert torch.equal(torque, after)
    backend.reset(torch.tensor([False, False, True]))
    history[2, past] = 4.0
    backend.step()
    assert torque[:, 1].tolist() == [6.0, 6.0, 4.0], "the others' late controls stay"


def test_sleeping_models_are_refused(name: str) -> None:
    model = mujoco.MjModel.from_xml_string(LEG)
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
    with pytest.raises(KoboshiError, match="sleep"):
        make_backend(name, model, 1)


def test_anyone_asks_only_the_cpu() -> None:
    """A device that would have to be waited for is not asked: a meta tensor could not even answer."""
    assert anyone(torch.tensor([False, True]))
    assert not anyone(torch.tensor([False, False]))
    assert anyone(torch.zeros(2, dtype=torch.bool, device="meta"))


def test_rows_are_looked_for_on_the_cpu_alone() -> None:
    assert rows_of(torch.tensor([False, True, True])).tolist() == [1, 2]
    assert rows_of(torch.zeros(3, dtype=torch.bool, device="meta")).shape == (3,)


def test_generators_are_functions_of_their_seed() -> None:
    draws = [torch.rand(3, generator=make_generator("cpu", seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_warp_raises_where_constraints_do_not_fit() -> None:
    from koboshi.sim.gpu import WarpBackend

    backend = WarpBackend(mujoco.MjModel.from_xml_string(LEG), N, DEVICES["warp"], njmax=2)
    backend.read("qpos")[2, 2] = 0.55  # the foot is in the floor: a contact of four rows
    backend.step(2)
    with pytest.raises(KoboshiError, match="simulation 2: njmax=2 is too small"):
        backend.check()
    backend.check()  # said once


def test_warp_lists_its_devices() -> None:
    with pytest.raises(KoboshiError, match="no device for MuJoCo Warp 'cuda:99'.*devices: cpu"):
        make_backend("warp", mujoco.MjModel.from_xml_string(LEG), 1, "cuda:99")


def test_warp_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(KoboshiError, match="pip install 'koboshi\\[gpu\\]'"):
        make_backend("warp", mujoco.MjModel.from_xml_string(LEG), 1)


def test_warp_steps_h1_like_mujoco() -> None:
    spec = physics_spec(UNITREE_H1)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1))
    model = spec.compile()
    cpu, warp = CpuBackend(model, N), make_backend("warp", model, N, DEVICES["warp"])
    for backend in (cpu, warp):
        backend.read("qpos")[:, 2] = UNITREE_H1.base_height
        backend.read("sensordata")
        for action in controls(20, model.nu):
            backend.read("ctrl")[:] = action
            backend.step()
    torch.testing.assert_close(warp.read("qpos").double().cpu(), cpu.read("qpos"), rtol=1e-3, atol=1e-3)
