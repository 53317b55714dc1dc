"""Configurations that cannot be: one clear error each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import worlds

from koboshi.config import override
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import BodyCfg, EventTerm, SceneCfg
from koboshi.envs.terms import events
from koboshi.errors import KoboshiError
from koboshi.faults import FaultsCfg, FaultSchedule


def cfg() -> EnvCfg:
    push = EventTerm(events.push, mode="interval")
    found = worlds.h1(
        faults=FaultSchedule(FaultsCfg()), scene=SceneCfg(bodies={"box": BodyCfg("box", (0.1, 0.1, 0.1))})
    )
    return replace(found, events=found.events | {"push": push})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("num_envs=0", "env.num_envs must be at least 1, not 0"),
        ("num_envs=-4", "env.num_envs must be at least 1, not -4"),
        ("decimation=0", "env.decimation must be at least 1, not 0"),
        ("episode_length_s=0", "at least a control step"),
        ("robot=unitree_h2", "no robot 'unitree_h2'; did you mean 'unitree_h1'"),
        ("sim.timestep=0", "env.sim.timestep must be positive, not 0"),
        ("sim.iterations=0", "env.sim.iterations must be at least 1"),
        ("sim.ls_iterations=0", "env.sim.ls_iterations must be at least 1"),
        ("sim.device=cuda:0", "env.sim.device 'cuda:0' needs env.sim.backend=warp"),
        ("sim.backend=wrap", "sim.backend"),
        ("actions.terms.joint_position.clip=[1, -1]", r"an action's clip is .lower, upper., not \(1.0, -1.0\)"),
        ("actions.delay=[-1, 1]", r"env.actions.delay is ≥ 0 physics steps, ascending, not \(-1, 1\)"),
        ("actions.delay=[0.5, 1]", "actions.delay"),
        ("scene.ground.friction=-1", "friction at least 0"),
        ("scene.bodies.box.shape=cone", "scene.bodies.box.shape"),
        ("scene.bodies.box.motion=flying", "scene.bodies.box.motion"),
        ("command.lin_vel_x=[1, 0]", "env.command.lin_vel_x: the lower bound 1.0 is above"),
        ("command.standing_fraction=2", "standing_fraction is from 0 to 1, not 2"),
        ("observations.policy.terms.joint_pos.history=0", "history must be at least 1, not 0"),
        ("observations.policy.terms.joint_pos.delay=[3, 1]", r"delays are ≥ 0 steps, ascending, not \(3, 1\)"),
        ("observations.policy.terms.joint_pos.noise=-1", "noise must be at least 0"),
        ("observations.policy.terms.joint_pos.clip=0", "clip must be positive"),
        ("observations.detector.concatenate=false", "an observation group that is not concatenated has no base"),
        ("rewards.track_lin_vel_xy.scale=0", "scale must be positive, not 0"),
        ("rewards.track_lin_vel_xy.clip=[1, 0]", r"clip is \(lower, upper\), not \(1.0, 0.0\)"),
        ("rewards.track_lin_vel_xy.shape=l3", "shape"),
        ("events.push.interval_s=[3, 1]", "interval is ≥ 0 s, ascending"),
        ("events.push.mode=sometimes", "mode"),
        ("rewards.track_lin_vel.weight=1", "no key 'rewards.track_lin_vel'; did you mean 'rewards.track_lin_vel_xy'"),
        ("faults.probability=2", "probability is from 0 to 1, not 2"),
        ("faults.faults.severity=[0, 1]", "severity is above 0 and at most 1"),
        ("faults.faults.kinds=[torque_los]", "faults.faults.kinds|no fault kind"),
    ],
)
def test_refused(key: str, message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        override(cfg(), [key])


def test_python_is_checked_as_overrides_are() -> None:
    found = cfg()
    with pytest.raises(KoboshiError, match="env.num_envs must be at least 1, not 0"):
        Env(replace(found, num_envs=0))
    term = replace(found.rewards["track_lin_vel_xy"], shape="l3")
    with pytest.raises(KoboshiError, match="no reward shape 'l3'; reward shapes: raw, l1"):
        Env(replace(found, rewards={"speed": term}))
    with pytest.raises(KoboshiError, match="no event mode 'sometimes'; event modes: startup, reset, interval"):
        Env(replace(found, events={"push": EventTerm(events.push, mode="sometimes")}))
    with pytest.raises(KoboshiError, match="env.rewards holds no term"):
        Env(replace(found, num_envs=2, rewards={"speed": None}))


def test_terms_can_be_removed() -> None:
    changes = ["faults=null", "events.push=null", "scene.bodies.box=null", "rewards.termination=null", "num_envs=2"]
    env = Env(override(cfg(), changes))
    env.reset(0)
    worlds.random_steps(env, 2)
    assert len(env.rewards.sums) == len(cfg().rewards) - 1
    assert not env.faults.active.any()
    assert env.model.nbody == 21 and env.events.state_dict() == {}


def test_a_config_that_someone_else_holds_is_left_alone() -> None:
    found = cfg()
    env = Env(replace(found, num_envs=2))
    env.reset(0)
    worlds.random_steps(env, 2)
    assert found == cfg()
