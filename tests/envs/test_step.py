"""One environment against a serial `mj_step` loop and numpy: physics, observations, rewards, ends and resets."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
import worlds

from koboshi.envs import Env
from koboshi.envs.cfg import RewardTerm
from koboshi.envs.terms import rewards
from koboshi.robots import UNITREE_H1

N, J = 4, 19


HIPS, ARMS = (".*_hip_yaw", ".*_hip_roll"), (".*_shoulder_.*", ".*_elbow")
REWARDS: dict[str, RewardTerm | None] = {
    "track_lin_vel_xy": RewardTerm(rewards.lin_vel_xy_error, 1.0, shape="exp", scale=0.5),
    "track_ang_vel_z": RewardTerm(rewards.ang_vel_z_error, 1.0, shape="exp", scale=0.5),
    "feet_air_time": RewardTerm(rewards.feet_air_time_biped, 1.0),
    "feet_slide": RewardTerm(rewards.feet_slide, -0.25),
    "ankle_limits": RewardTerm(rewards.joint_pos_limits, -1.0, {"joints": (".*_ankle",)}),
    "hip_deviation": RewardTerm(rewards.joint_deviation, -0.2, {"joints": HIPS}, shape="l1"),
    "arm_deviation": RewardTerm(rewards.joint_deviation, -0.2, {"joints": ARMS}, shape="l1"),
    "torso_deviation": RewardTerm(rewards.joint_deviation, -0.1, {"joints": ("torso",)}, shape="l1"),
    "flat_orientation": RewardTerm(rewards.flat_orientation, -1.0, shape="l2"),
    "action_rate": RewardTerm(rewards.action_rate, -0.005, shape="l2"),
    "joint_acc": RewardTerm(rewards.joint_acc, -1.25e-7, shape="l2"),
    "joint_torque": RewardTerm(rewards.joint_torque, -1e-5, shape="l2"),
    "lin_vel_z": RewardTerm(rewards.lin_vel_z, -2.0, shape="l2"),
    "height": RewardTerm(rewards.base_height_error, -10.0, {"target": 0.95}, shape="l2"),
    "alive": RewardTerm(rewards.alive, 0.3),
    "termination": RewardTerm(rewards.termination, -200.0),
}


def make(noise: bool = True, **changes: Any) -> Env:
    cfg = worlds.h1(num_envs=N, rewards=REWARDS, **changes)
    return Env(cfg if noise else worlds.clean(cfg))


def actions(steps: int, seed: int = 0, size: float = 0.3) -> torch.Tensor:
    return size * torch.randn(steps, N, J, generator=torch.Generator().manual_seed(seed))


class Reference:
    """One robot of the task, by hand: MuJoCo's own step, and everything else in numpy's float64."""

    dt = 0.02

    def __init__(self, env: Env, row: int) -> None:
        self.model, self.data = env.model, mujoco.MjData(env.model)
        state = env.backend.snapshot()[row].numpy()
        mujoco.mj_setState(self.model, self.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        self.default = UNITREE_H1.default_joint_pos.astype(np.float32)
        self.command = env.command.value[row].numpy().astype(float)
        self.action = self.previous = np.zeros(J)
        self.air, self.contact_time, self.contact = np.zeros(2), np.zeros(2), np.zeros(2, bool)
        self.acceleration = np.zeros(J)
        self.sums = dict.fromkeys(env.cfg.rewards, 0.0)

    def step(self, action: np.ndarray) -> dict[str, float]:
        self.previous, self.action = self.action, action.astype(float)
        self.data.ctrl[:] = self.default + np.float32(0.5) * action
        before = self.data.qvel[6:].copy()
        mujoco.mj_step(self.model, self.data, 4)
        self.acceleration = (self.data.qvel[6:] - before) / self.dt
        self.contact = np.array([self.data.sensor(f"{s}_foot_contact").data[0] > 1.0 for s in ("left", "right")])
        self.air = np.where(self.contact, 0, self.air + self.dt)
        self.contact_time = np.where(self.contact, self.contact_time + self.dt, 0)
        terms = self.rewards()
        for name, value in terms.items():
            self.sums[name] += value
        return terms

    @property
    def rotation(self) -> np.ndarray:
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, self.data.qpos[3:7])
        return matrix.reshape(3, 3)

    def policy(self) -> np.ndarray:
        to_body = self.rotation.T
        joints = self.data.qpos[7:] - UNITREE_H1.default_joint_pos, self.data.qvel[6:], self.action
        base = to_body @ self.data.qvel[:3], self.data.qvel[3:6], to_body @ [0, 0, -1]
        return np.concatenate([*base, self.command, *joints])

    def critic(self) -> np.ndarray:
        return np.concatenate([self.policy(), [self.data.qpos[2]], self.contact, self.air])

    def detector(self) -> np.ndarray:
        return np.concatenate([self.policy(), self.data.actuator_force])

    def rewards(self) -> dict[str, float]:
        q, ids = self.data.qpos[7:], UNITREE_H1.joint_ids
        heading = np.arctan2(self.rotation[1, 0], self.rotation[0, 0])
        c, s = np.cos(heading), np.sin(heading)
        velocity = np.array([[c, s], [-s, c]]) @ self.data.qvel[:2]
        slip = [np.linalg.norm(self.data.sensor(f"{side}_foot_vel").data[:2]) for side in ("left", "right")]
        low, high = self.model.jnt_range[1:][ids(".*_ankle")].T
        slack = 0.05 * (high - low)
        ankles = q[ids(".*_ankle")]
        outside = np.maximum(low + slack - ankles, 0) + np.maximum(ankles - high + slack, 0)
        phase = np.where(self.contact, self.contact_time, self.air).min()
        deviation = np.abs(q - UNITREE_H1.default_joint_pos)
        per_second = {
            "track_lin_vel_xy": np.exp(-((self.command[:2] - velocity) ** 2).sum() / 0.25),
            "track_ang_vel_z": np.exp(-((self.command[2] - self.data.qvel[5]) ** 2) / 0.25),
            "feet_air_time": min(phase, 0.4) * (self.contact.sum() == 1) * (np.abs(self.command).max() > 0.1),
            "feet_slide": -0.25 * (slip * self.contact).sum(),
            "ankle_limits": -outside.sum(),
            "hip_deviation": -0.2 * deviation[ids(".*_hip_yaw", ".*_hip_roll")].sum(),
            "arm_deviation": -0.2 * deviation[ids(".*_shoulder_.*", ".*_elbow")].sum(),
            "torso_deviation": -0.1 * deviation[ids("torso")].sum(),
            "flat_orientation": -((self.rotation.T @ [0, 0, -1])[:2] ** 2).sum(),
            "action_rate": -0.005 * ((self.action - self.previous) ** 2).sum(),
            "joint_acc": -1.25e-7 * (self.acceleration**2).sum(),
            "joint_torque": -1e-5 * (self.data.actuator_force**2).sum(),
            "lin_vel_z": -2.0 * (self.rotation.T @ self.data.qvel[:3])[2] ** 2,
            "height": -10 * (self.data.qpos[2] - 0.95) ** 2,
            "alive": 0.3,
            "termination": 0.0,
        }
        return {name: value * self.dt for name, value in per_second.items()}


def test_steps_by_hand() -> None:
    env = make(noise=False)
    env.reset(3)
    robots = [Reference(env, row) for row in range(N)]
    seen = np.zeros(2, bool)
    for action in actions(30):
        step = env.step(action)
        assert not (step.terminated | step.truncated).any(), "a fall: this seed says less"
        torch.testing.assert_close(env.ctrl.float(), env.default_joint_pos + 0.5 * action)
        for row, robot in enumerate(robots):
            terms = robot.step(action[row].numpy())
            assert np.array_equal(env.qpos[row].numpy(), robot.data.qpos)
            assert np.array_equal(env.qvel[row].numpy(), robot.data.qvel)
            for group in ("policy", "critic", "detector"):
                hand = getattr(robot, group)()
                np.testing.assert_allclose(step.obs[group][row].numpy(), hand, rtol=1e-5, atol=2e-5, err_msg=group)
            assert step.reward[row].item() == pytest.approx(sum(terms.values()), abs=1e-6)
            seen |= robot.contact
    idle = ("termination", "ankle_limits")
    for row, robot in enumerate(robots):
        hand = [robot.sums[name] for name in env.cfg.rewards]
        np.testing.assert_allclose(env.rewards.sums[:, row].numpy(), hand, rtol=1e-4, atol=1e-6)
        assert min(abs(value) for name, value in robot.sums.items() if name not in idle) > 0
    assert seen.all(), "a foot never touched the ground: the test says little"


def test_a_fall_terminates_and_costs() -> None:
    env = make()
    env.reset(0)
    env.step(actions(1)[0])
    env.qpos[1, 2] = 0.3
    env.episode_step[1] = env.cfg.max_episode_length - 1
    env.episode_step[2] = env.cfg.max_episode_length - 1
    step = env.step(actions(1)[0])
    assert step.terminated.tolist() == [False, True, False, False]
    assert step.truncated.tolist() == [False, False, True, False], "a fall at the last step is a fall only"
    assert step.reward[1] < -3.8 and step.reward[[0, 2, 3]].abs().max() < 0.5
    log = env.pop_log()
    assert log["reward/termination"] == pytest.approx(-200 * 0.02 / 20 / 2), "mean over two episodes, per second of 20"
    assert log["episode/falls"] == 0.5
    assert log["episode/length_s"] == pytest.approx(20.0)
    assert log["episode/nan"] == 0
    assert list(env.pop_log()) == ["episode/nan"]


def test_final_obs_is_the_true_last_observation() -> None:
    """A twin that does not end sees it as its next observation; rows that go on see it too."""
    env, twin = make(), make(terminations={})
    env.reset(0), twin.reset(0)
    for action in actions(5):
        env.step(action), twin.step(action)
    env.episode_step[2] = env.cfg.max_episode_length - 1
    action = actions(1, seed=9)[0]
    step, goes_on = env.step(action), twin.step(action)
    assert step.truncated.tolist() == [False, False, True, False]
    for group, value in step.final_obs.items():
        assert torch.equal(value, goes_on.obs[group]), group
        assert torch.equal(step.obs[group][[0, 1, 3]], value[[0, 1, 3]]), group
    assert not torch.equal(step.obs["critic"][2], step.final_obs["critic"][2])
    assert step.obs["critic"][2, 50:69].abs().max() == 0, "no action yet"
    assert step.obs["critic"][2, 69].item() == pytest.approx(UNITREE_H1.base_height)
    assert env.episode_step.tolist() == [6, 6, 0, 6]
    assert goes_on.obs is goes_on.final_obs, "nothing ended, nothing computed twice"


def test_a_reset_leaves_the_others_physics_alone() -> None:
    env, twin = make(), make(terminations={})
    env.reset(0), twin.reset(0)
    env.episode_step[2] = env.cfg.max_episode_length - 3
    others = [0, 1, 3]
    for action in actions(12):
        env.step(action), twin.step(action)
        assert torch.equal(env.qpos[others], twin.qpos[others])
        assert torch.equal(env.state.air_time[others], twin.state.air_time[others])
    assert not torch.equal(env.qpos[2], twin.qpos[2])


def test_first_observation_of_an_episode() -> None:
    env = make(noise=False)
    obs = env.reset(4)
    base, joints = env.qvel[:, :6].float(), env.qpos[:, 7:].float()
    assert (joints / env.default_joint_pos)[:, env.default_joint_pos != 0].min() >= 0.8
    assert base.abs().max() <= 0.5 and base.abs().min() > 0
    torch.testing.assert_close(obs["critic"][:, 3:6], base[:, 3:])
    torch.testing.assert_close(obs["critic"][:, 12:31], joints - env.default_joint_pos)
    assert obs["critic"][:, 31:69].abs().max() == 0
    at_rest = np.zeros((N, J))
    torque = UNITREE_H1.law.torque(UNITREE_H1.default_joint_pos, env.qpos[:, 7:].numpy(), at_rest)
    np.testing.assert_allclose(obs["detector"][:, 69:].numpy(), torque, atol=1e-4, err_msg="the servos pull already")
