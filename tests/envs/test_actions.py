"""Actions: who drives which joint, scales and bounds, and delays, against MuJoCo stepped physics step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch
import worlds
from torch import Tensor

from koboshi.envs import Env
from koboshi.envs.cfg import ActionsCfg, ActionTerm
from koboshi.envs.terms import actions
from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1

N = 4


def rover(**terms: ActionTerm | None) -> Env:
    return Env(worlds.rover(actions=ActionsCfg(worlds.ROVER_ACTIONS.terms | terms)))


def test_each_number_drives_its_joint() -> None:
    """Actions come in the terms' order, targets in the robot's: wheels, mast, vane."""
    env = rover()
    env.reset(0)
    env.step(torch.tensor([[0.5, -0.8, 0.25, -0.5]]).repeat(N, 1))
    target = [6.0 * 0.25, 6.0 * -0.5, 0.1 + 0.4 * 0.5, 0.25 * -0.8]
    assert env.robot.joint_names == ("left_wheel", "right_wheel", "mast", "vane")
    torch.testing.assert_close(env.ctrl[:, env.joints.actuator].float(), torch.tensor([target]).repeat(N, 1))


def test_wheels_and_torques_obey_their_law() -> None:
    """damping (target − q̇) for the wheel, the number itself for the torque, both within their limits."""
    env = Env(worlds.endless(worlds.rover(decimation=1)))
    env.reset(0)
    limit = env.robot.effort_limit
    for scale in (0.1, 0.4, 1.0):
        before_pos, before_vel = env.qpos[:, env.joints.qpos].clone(), env.qvel[:, env.joints.dof].clone()
        action = scale * torch.tensor([[1.0, -1.0, 1.0, -1.0]]).repeat(N, 1)
        env.step(action)
        wheels, mast, vane = 6.0 * action[:, 2:], 0.1 + 0.4 * action[:, :1], 0.25 * action[:, 1:2]
        asked = torch.cat((2.0 * (wheels - before_vel[:, :2]), 30.0 * (mast - before_pos[:, 2:3]), vane), dim=1)
        asked[:, 2] -= 1.0 * before_vel[:, 2]
        expected = asked.double().clamp(-torch.from_numpy(limit), torch.from_numpy(limit))
        torch.testing.assert_close(env.state.joint_torque, expected.float(), atol=1e-5, rtol=1e-5)
    assert (env.state.joint_torque[:, :2].abs() == 5.0).any(), "never at the limit: the test says less"


def test_a_wheel_rolls() -> None:
    """Friction of the skid costs a part of the speed asked for; the wheels' radius is 0.1 m."""
    env = Env(worlds.endless(worlds.rover(events={})))
    env.reset(0)
    for _ in range(150):
        env.step(torch.tensor([[0.0, 0.0, 0.5, 0.5]]).repeat(N, 1))
    speed = env.state.joint_vel[:, :2]
    assert speed.min() > 2.5 and speed.max() <= 3.0
    torch.testing.assert_close(env.state.base_lin_vel[:, 0], 0.1 * speed.mean(1), atol=0, rtol=0.2)


def test_bounds_are_known_and_kept() -> None:
    env = rover()
    space = env.action_space
    assert (space.dim, space.discrete) == (4, False)
    assert space.low == (-2.0, -10.0, -1.0, -1.0) and space.high == (3.0, 10.0, 1.0, 1.0)
    env.reset(0)
    step = env.step(torch.full((N, 4), 99.0))
    last_action = env.obs_spec["critic"].place("last_action")
    assert step.final_obs["critic"][0, last_action].tolist() == [3.0, 10.0, 1.0, 1.0]
    expected = torch.tensor([6.0, 6.0, 0.1 + 0.4 * 3.0, 0.25 * 10])
    torch.testing.assert_close(env.ctrl[0, env.joints.actuator].float(), expected)
    env.step(torch.full((N, 4), -99.0))
    assert env.actions.value[0].tolist() == [-2.0, -10.0, -1.0, -1.0]
    assert env.actions.previous[0].tolist() == [3.0, 10.0, 1.0, 1.0]


def test_scales_by_pattern() -> None:
    """The first pattern that matches wins."""
    env = Env(worlds.h1(actions=worlds.positions({".*_knee": 0.25, "left_.*": 0.1, ".*": 0.5})))
    expected = np.full(19, 0.5)
    expected[[i for i, name in enumerate(UNITREE_H1.joint_names) if name.startswith("left_")]] = 0.1
    expected[UNITREE_H1.joint_ids(".*_knee")] = 0.25
    np.testing.assert_allclose(env.actions.scale.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(env.actions.offset.numpy(), UNITREE_H1.default_joint_pos, rtol=1e-6)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"vane": None}, "joint 'vane' is driven by 0 action terms, and each needs one"),
        ({"again": ActionTerm(actions.joint_position, ("mast",))}, "joint 'mast' is driven by 2 action terms"),
        (
            {"wheels": ActionTerm(actions.joint_position, (".*_wheel",))},
            "joint 'left_wheel' has an actuator for velocity, and the action asks for position",
        ),
        (
            {"vane": ActionTerm(actions.joint_velocity, ("vane",))},
            "joint 'vane' has an actuator for torque, and the action asks for velocity",
        ),
        (
            {"top": ActionTerm(actions.joint_torque, ("mast",))},
            "joint 'mast' has an actuator for position, and the action asks for torque",
        ),
        ({"vane": ActionTerm(actions.joint_torque, ("vain",))}, "no joint 'vain'; did you mean 'vane'?"),
        (
            {"wheels": ActionTerm(actions.joint_velocity, (".*_wheel",), scale={"left_.*": 1.0})},
            r"no scale matches joint 'right_wheel'; patterns: left_\.\*",
        ),
        ({"vane": ActionTerm(actions.joint_torque, ("vane",), clip=(1.0, 1.0))}, "clip is .lower, upper., not"),
        ({name: None for name in ("top", "vane", "wheels")}, "joint 'left_wheel' is driven by 0 action terms"),
    ],
)
def test_refused(terms: dict[str, ActionTerm | None], message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        rover(**terms)


def test_a_delay_that_descends_is_refused() -> None:
    with pytest.raises(KoboshiError, match=r"env.actions.delay is ≥ 0 physics steps, ascending, not \(3, 1\)"):
        Env(worlds.h1(actions=worlds.positions(delay=(3, 1))))


def targets_by_hand(given: Sequence[Tensor], delay: int, decimation: int, start: Tensor) -> list[Tensor]:
    """What is in force in each physics step: the target of `delay` physics steps ago, before it the default pose."""
    asked = [target for target in given for _ in range(decimation)]
    return [asked[t - delay] if t >= delay else start for t in range(len(asked))]


@pytest.mark.parametrize("delay", [0, 1, 3, 4, 6, 9])
@pytest.mark.parametrize("decimation", [4, 1])
def test_a_delay_in_physics_steps(delay: int, decimation: int) -> None:
    """d = 0..3 of 4: within the control step; 4 the whole of it; 6 and 9 further back. Bit for bit MuJoCo's numbers."""
    cfg = worlds.h1(num_envs=2, decimation=decimation, actions=worlds.positions(delay=(delay, delay)))
    env = Env(worlds.endless(cfg))
    env.reset(3)
    env.model.actuator_delay[:] = 0.0
    data = mujoco.MjData(env.model)
    start = env.backend.snapshot()[1].numpy()
    mujoco.mj_setState(env.model, data, start, mujoco.mjtState.mjSTATE_INTEGRATION)
    given = 0.4 * torch.randn(5, 2, 19, generator=torch.Generator().manual_seed(delay))
    default = env.default_joint_pos
    by_hand = targets_by_hand([default + 0.5 * a[1] for a in given], delay, decimation, default)
    for t, action in enumerate(given):
        env.step(action)
        for target in by_hand[t * decimation : (t + 1) * decimation]:
            data.ctrl[:] = target.numpy()
            mujoco.mj_step(env.model, data)
        assert np.array_equal(env.qpos[1].numpy(), data.qpos)
        assert np.array_equal(env.qvel[1].numpy(), data.qvel)


def test_each_episode_has_a_delay_of_its_own() -> None:
    """Measured from outside: after how many physics steps a step of the target shows in the torque."""
    cfg = worlds.h1(num_envs=32, decimation=1, episode_length_s=0.05, actions=worlds.positions(delay=(1, 3)))
    env = Env(cfg)
    env.reset(0)
    seen: list[Tensor] = []
    for _ in range(6):
        late, moved = torch.zeros(32, dtype=torch.int64), torch.zeros(32, dtype=torch.bool)
        for _ in range(10):
            env.step(torch.ones(32, 19))
            moved |= env.state.joint_torque[:, 0] > 50
            late += ~moved & (env.episode_step > 0)
        seen.append(late)
    delays = torch.stack(seen)
    assert sorted(set(delays.flatten().tolist())) == [1, 2, 3]
    assert ((delays != delays[0]).any(0)).sum() > 16, "drawn anew for each episode"
    assert not torch.equal(delays[0], delays[0][:1].expand(32)), "and for each environment"


def test_who_goes_on_keeps_late_targets() -> None:
    """One of two robots begins anew while the other's targets are on their way."""
    cfg = worlds.h1(num_envs=2, episode_length_s=0.1, actions=worlds.positions(delay=(6, 6)))
    env, alone = (Env(replace(cfg, events={}, terminations=terms)) for terms in (cfg.terminations, {}))
    for each in (env, alone):
        each.reset(0)
    env.episode_step[0] = 2  # its time is up two steps sooner
    for t in range(5):
        action = torch.full((2, 19), 0.2 * t)
        first = env.step(action)
        alone.step(action)
        assert first.truncated.tolist() == [t == 2, t == 4]
        if t < 4:
            assert torch.equal(env.qpos[1], alone.qpos[1]) and torch.equal(env.qvel[1], alone.qvel[1])


def test_a_reset_forgets_late_targets() -> None:
    """What was asked before an episode's end never reaches the next one."""
    cfg = worlds.h1(episode_length_s=0.1, actions=worlds.positions(delay=(6, 6)))
    env = Env(replace(cfg, events={}))
    env.reset(0)
    for t in range(5):
        step = env.step(torch.full((N, 19), 3.0 if t < 4 else 0.0))
    assert step.truncated.all()
    assert not env.actions.value.any() and not env.actions.previous.any()
    assert torch.equal(env.ctrl, env.default_joint_pos.double().expand(N, 19))
    fresh = Env(env.cfg)
    fresh.reset(0)
    for _ in range(2):
        env.step(torch.zeros(N, 19)), fresh.step(torch.zeros(N, 19))
        assert torch.equal(env.qpos, fresh.qpos) and torch.equal(env.qvel, fresh.qvel)
    assert torch.equal(env.actions.value, torch.zeros(N, 19)) and torch.equal(env.actions.previous, env.actions.value)
