"""Configurations that cannot be: one clear error each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koboshi.config import override
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.tasks.h1_walk import env_cfg


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
        ("sim.device=cuda:0", "env.sim.device 'cuda:0' needs env.sim.backend=warp"),
        ("sim.backend=wrap", "sim.backend"),
        ("action.clip=0", "env.action.clip must be positive"),
        ("command.lin_vel_x=[1, 0]", "env.command.lin_vel_x: the lower bound 1.0 is above"),
        ("command.standing_fraction=2", "standing_fraction is from 0 to 1, not 2"),
        ("observations.policy.terms.joint_pos.history=0", "history must be at least 1, not 0"),
        ("observations.policy.terms.joint_pos.delay=[3, 1]", r"delays are ≥ 0 steps, ascending, not \(3, 1\)"),
        ("observations.policy.terms.joint_pos.noise=-1", "noise must be at least 0"),
        ("observations.policy.terms.joint_pos.clip=0", "clip must be positive"),
        ("rewards.feet_slide.scale=0", "scale must be positive, not 0"),
        ("rewards.feet_slide.clip=[1, 0]", r"clip is \(lower, upper\), not \(1.0, 0.0\)"),
        ("rewards.feet_slide.shape=l3", "shape"),
        ("events.reset_base.interval_s=[3, 1]", "interval is ≥ 0 s, ascending"),
        ("events.reset_base.mode=sometimes", "mode"),
        ("rewards.feet_slid.weight=1", "no key 'rewards.feet_slid'; did you mean 'rewards.feet_slide'"),
        ("events.change_joint_torque.params.schedule.probability=2", "probability is from 0 to 1, not 2"),
    ],
)
def test_refused(key: str, message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        override(env_cfg(), [key])


def test_python_is_checked_as_overrides_are() -> None:
    cfg = env_cfg()
    with pytest.raises(KoboshiError, match="env.num_envs must be at least 1, not 0"):
        Env(replace(cfg, num_envs=0))
    slide = replace(cfg.rewards["feet_slide"], shape="l3")
    with pytest.raises(KoboshiError, match="no reward shape 'l3'; reward shapes: raw, l1"):
        Env(replace(cfg, rewards={"slide": slide}))
    with pytest.raises(KoboshiError, match="env.rewards holds no term"):
        Env(replace(cfg, num_envs=2, rewards={"slide": None}))


def test_a_term_can_be_removed() -> None:
    cfg = override(env_cfg(), ["events.change_joint_torque=null", "rewards.joint_acc=null", "num_envs=2"])
    env = Env(cfg)
    env.reset(0)
    assert len(env.rewards.sums) == len(env_cfg().rewards) - 1
    assert not env.faults.active.any()
