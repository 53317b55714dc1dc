"""Faults that nobody planned: they come when they are asked for, and others go on."""

from __future__ import annotations

import pytest
import torch

from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, Fault, FaultLayer, FaultsOnDemand
from koboshi.robots import UNITREE_H1, JointMap, physics_spec
from koboshi.sim import Backend, ModelFields, make_backend

N, DT = 3, 0.02
KNEE, ELBOW = (UNITREE_H1.joint_id(name) for name in ("left_knee", "right_elbow"))
FIRST, EVERYONE = torch.tensor([True, False, False]), torch.ones(N, dtype=torch.bool)


def made(cfg: FaultsOnDemand) -> tuple[FaultLayer, Backend, ModelFields]:
    model = physics_spec(UNITREE_H1).compile()
    backend = make_backend("cpu", model, N)
    fields = ModelFields(backend)
    layer = FaultLayer(cfg, UNITREE_H1, JointMap(model, UNITREE_H1), backend, fields, DT)
    layer.restart(EVERYONE, torch.Generator().manual_seed(0))
    return layer, backend, fields


def at(step: int) -> torch.Tensor:
    return torch.full((N,), step)


def test_nothing_breaks_by_itself() -> None:
    layer = made(FaultsOnDemand(2))[0]
    for step in (0, 1, 10**6):
        layer.advance(at(step))
        assert not layer.active.any()


def test_a_fault_begins_at_the_next_step_of_those_asked_for_and_ends_when_taken_away() -> None:
    layer, _, fields = made(FaultsOnDemand(2))
    nominal = fields.randomised("actuator_forcerange").clone()
    layer.put(FIRST, 1, Fault("left_knee", severity=0.75), at(40))
    assert not layer.active.any(), "not before the next control step"
    layer.advance(at(40))
    assert layer.active.tolist() == [True, False, False]
    assert layer.severity[0, KNEE] == 0.75 and layer.severity[0].count_nonzero() == 1
    live = fields.live("actuator_forcerange")
    assert torch.allclose(live[0, KNEE], 0.25 * nominal[0, KNEE]) and torch.equal(live[1:], nominal[1:])
    layer.put(FIRST, 1, None, at(50))
    assert not layer.active.any() and torch.equal(live, nominal)


def test_another_one_leaves_what_the_first_holds() -> None:
    layer, backend, fields = made(FaultsOnDemand(2))
    place, live = backend.read("qpos"), fields.live("jnt_range")
    column = JointMap(backend.model, UNITREE_H1).qpos
    place[0, column] = 0.3
    layer.put(FIRST, 0, Fault("left_knee", "locked"), at(5))
    layer.advance(at(5))
    place[0, column] = 0.7
    layer.put(FIRST, 1, Fault("right_elbow", "locked"), at(6))
    layer.advance(at(6))
    joint = JointMap(backend.model, UNITREE_H1).joint
    middle = live[0, joint].mean(1)
    assert middle[KNEE] == pytest.approx(0.3) and middle[ELBOW] == pytest.approx(0.7)
    layer.put(FIRST, 0, Fault("left_knee", "locked"), at(7))
    layer.advance(at(7))
    assert live[0, joint].mean(1)[KNEE] == pytest.approx(0.7), "asked for anew it holds the joint where it is now"


def test_one_in_the_place_of_another_ends_it_though_it_comes_later() -> None:
    layer = made(FaultsOnDemand(1))[0]
    layer.put(FIRST, 0, Fault("left_knee"), at(5))
    layer.advance(at(5))
    layer.put(FIRST, 0, Fault("left_knee", "braking", onset_s=0.04), at(6))
    found = []
    for step in (6, 7, 8):
        layer.advance(at(step))
        found.append((bool(layer.active[0]), int(layer.kind[0, KNEE])))
    assert found == [(False, -1), (False, -1), (True, KINDS.index("braking"))]


def test_a_new_episode_is_whole() -> None:
    layer = made(FaultsOnDemand(1))[0]
    layer.put(EVERYONE, 0, Fault("left_knee"), at(5))
    layer.advance(at(5))
    layer.restart(torch.tensor([False, True, False]), torch.Generator())
    layer.advance(torch.tensor([6, 0, 6]))
    assert layer.active.tolist() == [True, False, True]


def test_what_cannot_be_is_refused() -> None:
    layer = made(FaultsOnDemand(1, ("torque_loss", "locked")))[0]
    with pytest.raises(KoboshiError, match="no fault kind prepared here 'braking'.*torque_loss, locked"):
        layer.put(EVERYONE, 0, Fault("left_knee", "braking"), at(0))
    with pytest.raises(KoboshiError, match="did you mean 'left_knee'"):
        layer.put(EVERYONE, 0, Fault("left_kne"), at(0))
    assert not layer.active.any()
    with pytest.raises(KoboshiError, match="at least 1, not 0"):
        FaultsOnDemand(0).validate()
