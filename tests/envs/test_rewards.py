"""Reward shapes and terms, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import worlds

from koboshi.envs import Env
from koboshi.envs.cfg import RewardTerm
from koboshi.envs.rewards import RewardManager, ValueStatistics, shaped
from koboshi.envs.terms import rewards, terminations
from koboshi.errors import KoboshiError


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("raw", -1.0),
        ("l1", 7.0),
        ("l2", 25.0),
        ("exp", math.exp(-25 / 4)),
        ("log", math.log(1 + 25 / 4)),
        ("tanh", math.tanh(3.5)),
    ],
)
def test_shapes(shape: str, expected: float) -> None:
    term = RewardTerm(rewards.alive, 1.0, shape=shape, scale=2.0)
    assert shaped(torch.tensor([[3.0, -4.0]]), term).item() == pytest.approx(expected)
    assert shaped(torch.tensor([2.0]), RewardTerm(rewards.alive, 1.0)).tolist() == [2.0]


def test_limits_begin_at_nine_tenths_of_the_range() -> None:
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.2, -0.5], [9.0, -0.95, 0.9]])
    limits = (torch.tensor([-1.0, -0.9, -0.4]), torch.tensor([1.0, 0.9, 0.4]))
    env = SimpleNamespace(state=SimpleNamespace(joint_pos=pos), soft_limits=limits, joint_ids=lambda names: [1, 2])
    assert rewards.joint_pos_limits(env, ("ankles",)).tolist() == pytest.approx([0, 0.3 + 0.1, 0.05 + 0.5])


def test_air_time_counts_the_shorter_clock_in_single_stance() -> None:
    contact = torch.tensor([[True, False], [True, True], [False, False], [False, True], [True, False]])
    air = torch.tensor([[0, 0.3], [0, 0], [0.2, 0.2], [0.7, 0], [0, 0.3]])
    stance = torch.tensor([[0.1, 0], [0.1, 0.1], [0, 0], [0, 0.6], [0.1, 0]])
    command = torch.tensor([[0.5, 0, 0]] * 4 + [[0.05, 0, 0]])
    state = SimpleNamespace(foot_contact=contact, air_time=air, contact_time=stance)
    env = SimpleNamespace(state=state, command=SimpleNamespace(value=command))
    value = rewards.feet_air_time_biped(env)
    assert value.tolist() == pytest.approx([0.1, 0, 0, 0.4, 0])


def test_trot_counts_where_one_pair_stands_and_the_other_swings() -> None:
    """Feet in order FL, FR, RL, RR. A trot; a bound; one leg up; a trot that stands still for too long; standing."""
    contact = torch.tensor([[1, 0, 0, 1], [1, 1, 0, 0], [1, 1, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]]).bool()
    times = torch.tensor([[0.3, 0.2, 0.02, 0.5], [0.3] * 4, [0.3] * 4, [0.2, 0.2, 0.2, 0.6], [0.2] * 4])
    command = torch.tensor([[0.5, 0, 0]] * 4 + [[0.05, 0, 0]])
    state = SimpleNamespace(foot_contact=contact, air_time=times * ~contact, contact_time=times * contact)
    env = SimpleNamespace(
        foot_ids=lambda names: [["FL", "FR", "RL", "RR"].index(name) for name in names],
        state=state,
        command=SimpleNamespace(value=command),
    )
    value = rewards.trot(env, (("FL", "RR"), ("FR", "RL")))
    assert value.tolist() == pytest.approx([1, 0, 0.25, 0, 0])


def test_air_time_pays_at_the_landing() -> None:
    """Two feet that land after 0.7 and 0.4 s; one that landed a step ago; the landing of a robot told to stand."""
    contact = torch.tensor([[True, True], [True, False], [True, True]])
    stance = torch.tensor([[0.02, 0.02], [0.04, 0.0], [0.02, 0.02]])
    last = torch.tensor([[0.7, 0.4], [0.7, 0.2], [0.7, 0.4]])
    command = torch.tensor([[0.5, 0, 0], [0.5, 0, 0], [0.0, 0.05, 0]])
    state = SimpleNamespace(foot_contact=contact, contact_time=stance, last_air_time=last)
    env = SimpleNamespace(state=state, step_dt=0.02, command=SimpleNamespace(value=command))
    assert rewards.feet_air_time(env).tolist() == pytest.approx([0.2 - 0.1, 0, 0])


def test_clips_and_sums_start_anew() -> None:
    """What a term earns is clipped before its weight; a new episode starts from nothing."""
    terms = {
        "speed": RewardTerm(lambda env: torch.tensor([-3.0, -0.5, 0.5, 3.0]), 10.0, clip=(-1.0, 2.0)),
        "alive": RewardTerm(rewards.alive, 1.0),
    }
    env = Env(worlds.go2(rewards=terms))
    env.reset(0)
    for _ in range(2):
        step = env.step(worlds.zeros(env))
    expected = torch.tensor([-10.0, -5.0, 5.0, 20.0]) * 0.02
    torch.testing.assert_close(step.reward, expected + 0.02)
    torch.testing.assert_close(env.rewards.sums, torch.stack((2 * expected, torch.full((4,), 0.04))))
    env.episode_step[2] = env.cfg.max_episode_length - 1
    env.step(worlds.zeros(env))
    assert env.rewards.sums[:, 2].tolist() == [0.0, 0.0]
    torch.testing.assert_close(env.rewards.sums[1], torch.tensor([0.06, 0.06, 0.0, 0.06]))


def test_a_joint_without_a_range_has_no_limits() -> None:
    env = Env(worlds.endless(worlds.rover()))
    env.reset(0)
    env.qpos[:, env.joints.qpos] = torch.tensor([50.0, -50.0, 1.45, 9.0]).double()
    env.state.refresh_motion(torch.zeros(4, dtype=torch.bool))
    beyond = rewards.joint_pos_limits(env, (".*",))
    torch.testing.assert_close(beyond, torch.full((4,), 1.45 - 0.9 * 1.5), msg="the mast's alone")


def test_power_and_smoothness_by_hand() -> None:
    state = SimpleNamespace(joint_torque=torch.tensor([[2.0, -3.0]]), joint_vel=torch.tensor([[-1.0, 2.0]]))
    actions = SimpleNamespace(
        value=torch.tensor([[4.0]]), previous=torch.tensor([[1.0]]), before_previous=torch.tensor([[0.5]])
    )
    env = SimpleNamespace(state=state, actions=actions)
    assert rewards.joint_power(env).tolist() == [8.0]
    assert rewards.action_smoothness(env).tolist() == [[2.5]]


def test_actions_of_two_steps_ago_are_kept_and_forgotten_at_a_reset() -> None:
    env = Env(worlds.go2(episode_length_s=0.06, terminations={"time_out": worlds.go2().terminations["time_out"]}))
    env.reset(0)
    ones = torch.ones(env.num_envs, 12)
    for size, second in ((1.0, 1.0), (3.0, 1.0)):
        env.step(size * ones)
        assert rewards.action_smoothness(env)[0, 0] == second
    env.step(4.0 * ones)
    assert rewards.action_smoothness(env)[0, 0] == 0.0  # a new episode has begun
    assert env.actions.before_previous.abs().max() == 0


def test_clearance_by_hand() -> None:
    """Two feet: one at 0.05 m moves at 0.5 m/s, one on the ground stands still."""
    state = SimpleNamespace(
        foot_vel=torch.tensor([[[0.3, 0.4, 9.0], [0.0, 0.0, 0.0]]]), foot_height=torch.tensor([[0.05, 0.0]])
    )
    value = rewards.feet_clearance(SimpleNamespace(state=state), target=0.15)
    torch.testing.assert_close(value, torch.tensor([0.1**2 * 0.5]))
    state.foot_vel *= 4  # 2 m/s is more than 1 m/s
    torch.testing.assert_close(rewards.feet_clearance(SimpleNamespace(state=state), 0.15), torch.tensor([0.1**2]))


def test_clearance_in_the_bodys_frame_does_not_mind_how_the_body_lies() -> None:
    env = Env(worlds.clean(worlds.go2(num_envs=2)))
    env.reset(0)
    everyone = torch.ones(2, dtype=torch.bool)
    env.place(everyone, "qpos", env.default_joint_pos.expand(2, -1))
    half = torch.tensor([0.0, 0.3])
    quat = torch.stack((half.cos(), torch.zeros(2), half.sin(), torch.zeros(2)), 1)
    env.place(everyone, "base_quat", quat)
    env.place(everyone, "base_lin_vel", torch.tensor([[0.7, 0.0, 0.2]]).expand(2, -1))
    env.place(everyone, "base_ang_vel", torch.zeros(2, 3))
    env.place(everyone, "dof", torch.zeros(2, 12))
    env.backend.forward()
    env.state.restart(everyone)
    torch.testing.assert_close(rewards.feet_clearance_body(env, -0.2), torch.zeros(2), atol=1e-9, rtol=0)
    env.place(everyone, "dof", torch.ones(2, 12))
    env.backend.forward()
    env.state.restart(everyone)
    level, tilted = rewards.feet_clearance_body(env, -0.2)
    assert level > 0.001
    torch.testing.assert_close(level, tilted)


def test_bodies_that_touch_are_counted_and_their_soles_are_not() -> None:
    """One Go2 stands on its feet, one lies on its back: the base touches, and perhaps hips and thighs."""
    cfg = worlds.endless(worlds.clean(worlds.go2(num_envs=2)))
    env = Env(replace(cfg, scene=replace(cfg.scene, contacts="body")))
    env.reset(0)
    everyone = torch.ones(2, dtype=torch.bool)
    env.place(everyone, "qpos", env.default_joint_pos.expand(2, -1))
    env.place(everyone, "base_quat", torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    env.place(everyone, "base_pos", torch.tensor([[0, 0, 0.33], [0, 0, 0.12]]))
    for _ in range(25):
        env.step(torch.zeros(2, 12))
    assert env.state.foot_contact.all(1).tolist() == [True, False]
    assert rewards.undesired_contacts(env, (".*",))[0] == 0
    assert terminations.illegal_contact(env, ("base",)).tolist() == [False, True]
    assert env.touching(("base", ".*_calf")).shape == (2, 5)
    with pytest.raises(KoboshiError, match="no body that touches the ground 'trunk'; bodies: base"):
        env.touching(("trunk",))


def test_contacts_of_bodies_are_asked_for() -> None:
    env = Env(worlds.go2())
    with pytest.raises(KoboshiError, match="sensed where env.scene.contacts=body"):
        rewards.undesired_contacts(env, ("base",))


def test_values_are_counted_before_clip_and_weight() -> None:
    """A value of 2·(step) with a clip at 3 and a weight: what is earned is clipped, what is counted is not."""
    env = Env(worlds.clean(worlds.go2(num_envs=3)))
    term = RewardTerm(lambda env: 2.0 * env.episode_step, -5.0, clip=(0.0, 3.0))
    manager = RewardManager({"late": term, "alive": RewardTerm(rewards.alive, 1.0)}, env)
    fine = torch.zeros(3, dtype=torch.bool)
    for step in (1, 2, 3):
        env.episode_step[:] = step
        reward = manager.compute(fine)
        assert reward.tolist() == pytest.approx([(-5.0 * min(2.0 * step, 3.0) + 1.0) * env.step_dt] * 3)
    found = manager.values.pop()
    assert found["value/late/mean"] == pytest.approx(4.0) and found["value/late/most"] == 6.0
    assert found["value/late/std"] == pytest.approx((8 / 3) ** 0.5)
    assert found["value/alive/std"] == 0.0
    assert manager.values.pop() == {}


def test_magnitudes_of_negative_values() -> None:
    statistics = ValueStatistics(("a",), torch.device("cpu"))
    statistics.add(torch.tensor([[-4.0, 1.0]]))
    found = statistics.pop()
    assert found == {"value/a/mean": -1.5, "value/a/std": 2.5, "value/a/most": 4.0}
    assert ValueStatistics(("a",), torch.device("cpu")).pop() == {}


def test_stumble_counts_feet_pushed_sideways() -> None:
    force = torch.tensor([[[0.0, 0.0, 80.0], [60.0, 0.0, -11.0]], [[3.0, 4.0, 0.9], [0.0, 0.0, 0.0]]])
    assert rewards.stumble(SimpleNamespace(foot_force=force)).tolist() == [1.0, 1.0]


def test_the_force_on_feet_is_the_robots_weight() -> None:
    """A Go2 that stands still; and one in the air."""
    cfg = worlds.clean(worlds.go2(num_envs=2))
    env = Env(replace(cfg, scene=replace(cfg.scene, contacts="body"), events={}, terminations={}))
    env.reset(0)
    for _ in range(75):
        env.step(worlds.zeros(env))
    env.qpos[1, 2] += 3.0
    env.step(worlds.zeros(env))
    force = env.foot_force
    assert force[0, :, 2].abs().sum().item() == pytest.approx(9.81 * env.robot_mass, rel=0.02)
    assert force[0, :, 2].abs().min() > 10 and force[1].abs().max() == 0
    assert force[0, :, 2].abs().tolist() == pytest.approx(
        env.state.sensordata[0, env.joints.foot_contact].tolist(), rel=0.02
    )
    plain = Env(cfg)
    with pytest.raises(KoboshiError, match="sensed where env.scene.contacts=body"):
        _ = plain.foot_force


def test_lift_is_upward_speed() -> None:
    velocity = torch.tensor([[[1.0, 0.0, 0.5], [1.0, 0.0, -0.5]]])
    assert rewards.feet_lift(SimpleNamespace(state=SimpleNamespace(foot_vel=velocity))).tolist() == [[0.5, 0.0]]


def test_tracking_in_three_frames() -> None:
    """A Go2 that faces +y, nose up by 30°, and moves along the world's y at 1 m/s, told to go forward at 1 m/s."""
    env = Env(worlds.clean(worlds.go2(num_envs=1)))
    env.reset(0)
    everyone = torch.ones(1, dtype=torch.bool)
    yaw, pitch = torch.tensor([math.cos(math.pi / 4), 0, 0, math.sin(math.pi / 4)]), -math.pi / 6
    c, s = math.cos(pitch / 2), math.sin(pitch / 2)
    quat = torch.tensor([[yaw[0] * c, -yaw[3] * s, yaw[0] * s, yaw[3] * c]])
    env.place(everyone, "base_quat", quat)
    env.place(everyone, "base_lin_vel", torch.tensor([[0.0, 1.0, 0.0]]))
    env.state.refresh_motion(~everyone)
    env.command.value[:] = torch.tensor([1.0, 0.0, 0.0])
    assert rewards.lin_vel_xy_error(env)[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    forward = math.cos(math.pi / 6)
    assert rewards.lin_vel_xy_error(env, "base")[0].tolist() == pytest.approx([1 - forward, 0.0], abs=1e-6)
    assert rewards.lin_vel_xy_error(env, "world")[0].tolist() == pytest.approx([1.0, -1.0], abs=1e-6)
    with pytest.raises(KoboshiError, match="no frame 'body'; frames: yaw, base, world"):
        rewards.lin_vel_xy_error(env, "body")


def test_terms_of_some_joints_and_the_pose_in_the_mirror() -> None:
    env = Env(worlds.clean(worlds.go2(num_envs=1)))
    env.reset(0)
    env.state.joint_pos = env.default_joint_pos[None].clone()
    assert rewards.pose_mirror(env).abs().max() < 1e-6
    names = list(env.robot.joint_names)
    env.state.joint_pos[0, names.index("FL_hip_joint")] += 0.2  # outward, as the right one would by −0.2
    env.state.joint_pos[0, names.index("FR_hip_joint")] -= 0.2
    env.state.joint_pos[0, names.index("RL_calf_joint")] += 0.1
    found = dict(zip(names, rewards.pose_mirror(env)[0].tolist(), strict=True))
    assert {name for name, x in found.items() if abs(x) > 1e-6} == {"RL_calf_joint", "RR_calf_joint"}
    assert found["RL_calf_joint"] == pytest.approx(0.1) and found["RR_calf_joint"] == pytest.approx(-0.1)
    calves = rewards.pose_mirror(env, (".*_calf_joint",))
    assert calves.shape == (1, 4) and calves.abs().sum().item() == pytest.approx(0.2)
    env.state.joint_torque, env.state.joint_vel = torch.arange(12.0)[None], torch.full((1, 12), -2.0)
    hips = [i for i, name in enumerate(names) if "hip" in name]
    assert rewards.joint_power(env, (".*_hip_joint",)).item() == 2 * sum(hips)
    assert rewards.joint_torque(env, (".*_hip_joint",))[0].tolist() == hips
    assert rewards.joint_acc(env).shape == (1, 12) and rewards.joint_acc(env, (".*_hip_joint",)).shape == (1, 4)
