"""Named worlds: each differs from the nominal one by what its name says, and by nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from koboshi import config
from koboshi.bench import worlds
from koboshi.bench.rollout import rollout, scenario_cfg
from koboshi.bench.worlds import WORLDS, in_world
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError
from koboshi.faults import Scenario, Scenarios
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter
from koboshi.tasks import make_task

ON = ["friction", "mass", "gains", "strength", "joint_friction", "encoder_bias", "push", "armature", "com", "force"]


@pytest.fixture(scope="module")
def wild() -> EnvCfg:
    """Go2's environment with everything on that its training may switch on."""
    on = [f"env.events.{name}.active=true" for name in ON]
    delays = ["env.actions.delay=[0,4]", "env.observations.policy.terms.joint_pos.delay=[1,2]"]
    return replace(config.override(make_task("go2-flat"), on + delays).env, num_envs=3)


def test_the_nominal_world_is_the_models_own(wild: EnvCfg) -> None:
    """Noise and what places a robot are the task's."""
    plain, calm = make_task("go2-flat").env, in_world(wild, "nominal")
    assert sorted(calm.events) == ["reset_base", "reset_joints"]
    assert calm == replace(plain, num_envs=3, events=calm.events)
    env = Env(calm)
    env.reset(0)
    assert env.fields.state_dict() == {} and not env.encoder_bias.any()


@pytest.mark.parametrize(
    ("name", "field", "factor"),
    [
        ("soft_gains", "actuator_gainprm", worlds.SOFT),
        ("stiff_gains", "actuator_gainprm", worlds.STIFF),
        ("weak_motors", "actuator_forcerange", worlds.STRENGTH),
    ],
)
def test_actuators_are_weaker_or_stronger_by_a_factor(wild: EnvCfg, name: str, field: str, factor: float) -> None:
    env = Env(in_world(wild, name))
    env.reset(0)
    assert factor != 1
    torch.testing.assert_close(env.fields.live(field), env.fields.nominal(field).expand(3, -1, -1) * factor)
    bias = {"actuator_gainprm": {"actuator_biasprm"}}.get(field, set())
    assert set(env.fields.state_dict()) == {field} | bias


def test_load_friction_and_stiction(wild: EnvCfg) -> None:
    """By hand: Go2 weighs 15.2 kg, and its calves' effort limit is 45.4 N·m."""
    loaded, slippery, sticky = (Env(in_world(wild, name)) for name in ("loaded", "slippery", "sticky_joints"))
    for env in (loaded, slippery, sticky):
        env.reset(0)
    mass = loaded.fields.live("body_mass").sum(1) - loaded.model.body_mass.sum()
    assert mass.tolist() == pytest.approx([worlds.LOAD * loaded.model.body_mass.sum()] * 3)
    assert slippery.fields.live("geom_friction")[:, :, 0].unique().tolist() == pytest.approx([worlds.FRICTION])
    added = sticky.fields.live("dof_frictionloss") - sticky.fields.nominal("dof_frictionloss")
    torch.testing.assert_close(added[:, 6:], (worlds.STICTION * sticky.effort_limit).double().expand(3, -1))
    assert not added[:, :6].any() and 0.1 < added[0, 8] < 1.0


def test_late_sloped_and_the_other_backend(wild: EnvCfg) -> None:
    calm = in_world(wild, "nominal")
    assert in_world(wild, "late") == replace(calm, actions=replace(calm.actions, delay=(worlds.LATE, worlds.LATE)))
    sloped = in_world(wild, "sloped")
    assert sloped == replace(calm, scene=sloped.scene)
    height = Env(sloped).scene.height(torch.tensor([[10.0, 0.0, 0.0]]))
    assert height.tolist() == pytest.approx([10 * worlds.SLOPE])
    other = in_world(wild, "other_backend")
    assert other == replace(calm, sim=replace(calm.sim, backend="warp"))
    back = in_world(replace(calm, sim=replace(calm.sim, backend="warp", device="cuda:0")), "other_backend")
    assert (back.sim.backend, back.sim.device) == ("cpu", "cpu")


class Still:
    def initial_state(self, num_envs: int, device: Any) -> tuple[()]:
        return ()

    def act(self, obs: Any, state: tuple[()], reset: Any) -> tuple[Any, tuple[()]]:
        return torch.zeros(len(reset), 12), state


def test_shoves_strike_scenarios_in_their_world_alone(wild: EnvCfg) -> None:
    scenarios = Scenarios("unitree_go2", 3, (Scenario((), (0.0, 0.0, 0.0), 0.0),) * 2)
    controller = Controller(Still(), None, HealthyRouter(12))  # type: ignore[arg-type]
    calm, pushed = (rollout(wild, controller, scenarios, 4.0, world=name) for name in ("nominal", "pushed"))
    shove = round(worlds.EVERY_S / calm.step_dt)
    assert torch.equal(calm.velocity[: shove - 2], pushed.velocity[: shove - 2])
    change = (pushed.velocity - calm.velocity)[shove - 2 : shove + 3, :, :2].abs().amax((0, 2))
    assert (change > 0.05).all() and (change < 1.5 * worlds.PUSH).all()
    assert scenario_cfg(wild, scenarios).events["friction"] is not None, "without a world it is the task's own"


def test_a_world_that_is_none_is_named(wild: EnvCfg) -> None:
    with pytest.raises(KoboshiError, match="no world 'soft_gain'; did you mean 'soft_gains'"):
        in_world(wild, "soft_gain")
    assert len({world.about for world in WORLDS.values()}) == len(WORLDS) == 11
