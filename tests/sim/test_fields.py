"""Model fields in three layers, nominal, randomised and under an overlay, against MuJoCo's own constants and steps."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.sim import CpuBackend, ModelFields

N = 3
PENDULUM = """
<mujoco>
  <option timestep="0.005" integrator="implicitfast"/>
  <worldbody>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" damping=".2" range="-60 60"/>
      <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".03" mass="1"/>
      <body name="lower" pos="0 0 -.3">
        <joint name="elbow" axis="0 1 0" damping=".1"/>
        <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".03" mass=".5"/>
      </body>
    </body>
  </worldbody>
  <actuator><position name="shoulder" joint="shoulder" kp="20" kv="1" forcerange="-5 5"/></actuator>
</mujoco>
"""
UPPER, LOWER = 1, 2


class Counting(CpuBackend):
    """Notes for whom constants were computed anew."""

    def __init__(self) -> None:
        super().__init__(mujoco.MjModel.from_xml_string(PENDULUM), N, 1)
        self.settled: list[list[bool] | None] = []

    def set_const(self, mask: Tensor | None = None) -> None:
        self.settled.append(None if mask is None else mask.tolist())
        super().set_const(mask)


@pytest.fixture
def backend() -> Counting:
    return Counting()


@pytest.fixture
def fields(backend: Counting) -> ModelFields:
    found = ModelFields(backend)
    found.expand("dof_damping")
    return found


def rows(*which: int) -> Tensor:
    mask = torch.zeros(N, dtype=torch.bool)
    mask[list(which)] = True
    return mask


EVERYONE = rows(0, 1, 2)


def test_nominal_is_the_models_own(fields: ModelFields) -> None:
    assert fields.nominal("dof_damping").tolist() == [0.2, 0.1]
    assert fields.randomised("dof_damping").tolist() == [[0.2, 0.1]] * N
    assert fields.live("dof_damping").tolist() == [[0.2, 0.1]] * N


def test_only_the_rows_of_the_mask_are_randomised(fields: ModelFields, backend: Counting) -> None:
    fields.randomise("dof_damping", rows(1), torch.full((N, 2), 3.0))
    expected = [[0.2, 0.1], [3.0, 3.0], [0.2, 0.1]]
    assert fields.randomised("dof_damping").tolist() == expected
    assert fields.live("dof_damping").tolist() == expected
    assert backend.expand("dof_damping").tolist() == expected, "what physics steps with"
    assert fields.nominal("dof_damping").tolist() == [0.2, 0.1]


def test_an_overlay_lies_over_the_randomised_value_and_goes_again(fields: ModelFields) -> None:
    level = torch.zeros(N, 1)
    fields.overlay("dof_damping", lambda value: value + level)
    fields.randomise("dof_damping", rows(0, 1), torch.full((N, 2), 2.0))
    level[1] = 40.0
    assert fields.live("dof_damping")[1].tolist() == [2.0, 2.0], "not before it is refreshed"
    fields.refresh("dof_damping")
    assert fields.live("dof_damping").tolist() == [[2.0, 2.0], [42.0, 42.0], [0.2, 0.1]]
    fields.randomise("dof_damping", rows(1), torch.full((N, 2), 5.0))
    assert fields.live("dof_damping")[1].tolist() == [45.0, 45.0], "drawn anew under a fault it stays faulted"
    assert fields.randomised("dof_damping")[1].tolist() == [5.0, 5.0]
    level[1] = 0.0
    fields.refresh("dof_damping")
    assert fields.live("dof_damping")[1].tolist() == [5.0, 5.0]


def test_constants_that_follow_are_computed_anew(backend: Counting) -> None:
    """Subtree masses and inverse weights are those of MuJoCo's `mj_setConst` on the changed model; the state stays."""
    fields = ModelFields(backend)
    fields.expand("body_mass", derives=True)
    names = ("body_subtreemass", "body_invweight0", "dof_invweight0")
    derived = {name: backend.expand(name) for name in names}
    backend.read("qpos")[:] = 0.3
    backend.step(5)
    before = backend.snapshot()
    mass = fields.randomised("body_mass").clone()
    mass[1, UPPER], mass[1, LOWER], mass[2, LOWER] = 2.0, 4.0, 9.0
    fields.randomise("body_mass", rows(1), mass)
    fields.settle(rows(1))
    assert torch.equal(backend.snapshot(), before)
    for row, masses in enumerate(((1.0, 0.5), (2.0, 4.0), (1.0, 0.5))):
        model = mujoco.MjModel.from_xml_string(PENDULUM)
        model.body_mass[1:] = masses
        mujoco.mj_setConst(model, mujoco.MjData(model))
        for name in names:
            np.testing.assert_allclose(derived[name][row].numpy(), getattr(model, name), rtol=1e-12, err_msg=name)
    assert derived["body_subtreemass"][:, UPPER].tolist() == [1.5, 6.0, 1.5]


def test_steps_are_those_of_the_changed_model(backend: Counting) -> None:
    fields = ModelFields(backend)
    fields.expand("body_mass", derives=True)
    fields.expand("jnt_range")
    mass = fields.randomised("body_mass").clone()
    mass[:, LOWER] = torch.tensor([0.5, 2.0, 5.0])
    fields.randomise("body_mass", EVERYONE, mass)
    fields.randomise("jnt_range", rows(2), torch.full((N, 2, 2), 0.4) * torch.tensor([-1.0, 1.0]))
    fields.settle()
    backend.read("qpos")[:] = 0.3
    backend.read("ctrl")[:] = 1.0
    backend.step(80)
    for row in range(N):
        model = mujoco.MjModel.from_xml_string(PENDULUM)
        model.body_mass[LOWER] = mass[row, LOWER].item()
        if row == 2:
            model.jnt_range[:] = (-np.float32(0.4), np.float32(0.4))
        mujoco.mj_setConst(model, mujoco.MjData(model))
        data = mujoco.MjData(model)
        data.qpos[:], data.ctrl[:] = 0.3, 1.0
        mujoco.mj_step(model, data, 80)
        assert np.array_equal(backend.read("qpos")[row].numpy(), data.qpos)


def test_constants_are_computed_only_where_something_changed(backend: Counting) -> None:
    fields = ModelFields(backend)
    fields.expand("dof_damping")
    fields.expand("body_mass", derives=True)
    fields.settle()
    fields.randomise("dof_damping", EVERYONE, torch.ones(N, 2))
    fields.settle()
    assert backend.settled == [], "nothing follows from a damping"
    fields.randomise("body_mass", rows(2), torch.ones(N, 3))
    fields.settle(rows(2))
    fields.settle(EVERYONE)
    assert backend.settled == [[False, False, True]]


def test_expanding_twice_remembers_what_follows(backend: Counting) -> None:
    fields = ModelFields(backend)
    fields.expand("body_mass")
    fields.randomise("body_mass", EVERYONE, torch.ones(N, 3))
    fields.expand("body_mass", derives=True)
    fields.expand("body_mass")
    assert fields.nominal("body_mass").tolist() == [0.0, 1.0, 0.5], "and what the model said"
    fields.randomise("body_mass", EVERYONE, torch.ones(N, 3))
    fields.settle()
    assert backend.settled == [None]


def test_a_state_brings_back_randomised_values_and_what_follows(backend: Counting) -> None:
    fields = ModelFields(backend)
    fields.expand("body_mass", derives=True)
    fields.expand("dof_damping")
    subtree = backend.expand("body_subtreemass")
    level = torch.zeros(N, 1)
    fields.overlay("dof_damping", lambda value: value + level)
    fields.randomise("body_mass", EVERYONE, torch.full((N, 3), 2.0))
    fields.randomise("dof_damping", rows(0), torch.full((N, 2), 7.0))
    saved = fields.state_dict()
    assert set(saved) == {"body_mass", "dof_damping"}
    fields.randomise("body_mass", EVERYONE, torch.full((N, 3), 3.0))
    fields.randomise("dof_damping", EVERYONE, torch.full((N, 2), 1.0))
    fields.settle()
    assert saved["dof_damping"][0].tolist() == [7.0, 7.0], "a saved state is a copy"
    level[0] = 1.0
    fields.load_state_dict(saved)
    assert fields.randomised("dof_damping").tolist() == [[7.0, 7.0], [0.2, 0.1], [0.2, 0.1]]
    assert fields.live("dof_damping")[0].tolist() == [8.0, 8.0], "under the overlay"
    assert subtree[:, UPPER].tolist() == [4.0] * N


def test_back_to_nominal(backend: Counting) -> None:
    fields = ModelFields(backend)
    fields.expand("body_mass", derives=True)
    fields.expand("dof_damping")
    fields.overlay("dof_damping", lambda value: value + 1)
    subtree = backend.expand("body_subtreemass")
    fields.randomise("body_mass", EVERYONE, torch.full((N, 3), 2.0))
    fields.randomise("dof_damping", EVERYONE, torch.full((N, 2), 7.0))
    fields.restore_nominal()
    fields.settle()
    assert fields.randomised("body_mass").tolist() == [[0.0, 1.0, 0.5]] * N
    assert subtree[:, UPPER].tolist() == [1.5] * N
    assert fields.live("dof_damping").tolist() == [[1.2, 1.1]] * N


@pytest.mark.parametrize("ask", ["nominal", "randomised", "live", "refresh", "overlay", "randomise"])
def test_fields_that_nobody_expanded(fields: ModelFields, ask: str) -> None:
    more = {"overlay": [lambda value: value], "randomise": [EVERYONE, torch.ones(N, 2)]}.get(ask, [])
    with pytest.raises(KoboshiError, match="no expanded model field 'dof_dampin'; did you mean 'dof_damping'"):
        getattr(fields, ask)("dof_dampin", *more)


def test_expanding_after_the_first_step_is_refused(fields: ModelFields, backend: Counting) -> None:
    backend.step()
    with pytest.raises(KoboshiError, match="'body_mass' must be expanded before the first step"):
        fields.expand("body_mass")
