"""The robot's state: the feet's clocks and accelerations, step by step by hand."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
import worlds

from koboshi.envs import Env

N, DT = 4, 0.02


def test_the_feets_clocks_by_hand() -> None:
    """A Go2 dropped from 0.3 m above its stance, lifted, and dropped again."""
    env = Env(worlds.endless(worlds.go2(events={})))
    env.reset(0)
    air, stance, last = (torch.zeros(N, 4) for _ in range(3))
    flights = 0
    for t in range(70):
        if t in (0, 35):
            env.qpos[:, 2] += 0.2
        env.step(worlds.zeros(env))
        contact = env.state.foot_contact
        landed = contact & (air > 0)
        flights += int(landed.sum())
        last = torch.where(landed, air, last)
        air, stance = torch.where(contact, 0.0, air + DT), torch.where(contact, stance + DT, 0.0)
        torch.testing.assert_close(env.state.air_time, air)
        torch.testing.assert_close(env.state.contact_time, stance)
        torch.testing.assert_close(env.state.last_air_time, last)
    assert flights >= 8 and last.min() > 0.1


def test_a_reset_forgets_what_was_before_it() -> None:
    """Clocks and accelerations of the row that begins anew are 0, those of the others stay."""
    env = Env(worlds.h1(num_envs=N))
    env.reset(0)
    worlds.random_steps(env, 12)
    env.qpos[1, 2] += 0.5
    env.step(worlds.zeros(env))
    env.episode_step[[1, 2]] = env.cfg.max_episode_length - 1
    before = env.state.state_dict()
    assert env.step(worlds.zeros(env)).truncated.tolist() == [False, True, True, False]
    after = env.state.state_dict()
    for name in ("air_time", "contact_time", "last_air_time", "joint_acc"):
        assert not after[name][[1, 2]].any(), name
        assert before[name].any(), f"{name} was 0 already: the test says little"
    assert after["contact_time"][[0, 3]].any() and after["joint_acc"][[0, 3]].all()


def test_frames_are_mujocos() -> None:
    """Turned anyhow: velocity and gravity in the base's frame, heading, and velocity in the yaw frame."""
    env = Env(worlds.go2(num_envs=20))
    env.reset(0)
    generator = torch.Generator().manual_seed(1)
    quats = torch.nn.functional.normalize(torch.randn(20, 4, generator=generator, dtype=torch.float64), dim=1)
    velocity = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    env.qpos[:, env.joints.base_quat], env.qvel[:, env.joints.base_lin_vel] = quats, velocity
    env.state.refresh_motion(torch.zeros(20, dtype=torch.bool))
    inverse, turned = np.empty(4), np.empty(3)
    for i, (quat, vel) in enumerate(zip(quats.numpy(), velocity.numpy(), strict=True)):
        mujoco.mju_negQuat(inverse, quat)
        for found, vector in ((env.state.base_lin_vel, vel), (env.state.projected_gravity, np.array([0.0, 0.0, -1.0]))):
            mujoco.mju_rotVecQuat(turned, vector, inverse)
            np.testing.assert_allclose(found[i].numpy(), turned, atol=1e-5)
        mujoco.mju_rotVecQuat(turned, np.array([1.0, 0.0, 0.0]), quat)
        yaw = np.arctan2(turned[1], turned[0])
        assert env.state.heading[i].item() == pytest.approx(yaw, abs=1e-4)
        level = [np.cos(yaw) * vel[0] + np.sin(yaw) * vel[1], np.cos(yaw) * vel[1] - np.sin(yaw) * vel[0]]
        np.testing.assert_allclose(env.state.lin_vel_yaw[i].numpy(), level, atol=1e-4)


def test_accelerations_are_over_a_control_step() -> None:
    env = Env(worlds.endless(worlds.go2()))
    env.reset(0)
    before = env.state.joint_vel
    for step in range(3):
        env.step(torch.full((N, 12), 0.5 * (-1) ** step))
        after = env.qvel[:, env.joints.dof].float()
        torch.testing.assert_close(env.state.joint_acc, (after - before) / DT)
        before = after


def test_who_does_not_begin_anew_keeps_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a backend may compute derived fields of all environments, as MuJoCo Warp does."""
    env = Env(worlds.go2(num_envs=4))
    env.reset(0)
    worlds.random_steps(env, 5)
    lagging = ("joint_torque", "foot_contact", "foot_pos", "foot_vel", "foot_height", "sensordata")
    before = {name: getattr(env.state, name).clone() for name in lagging}
    forward = env.backend.forward
    monkeypatch.setattr(env.backend, "forward", lambda mask: forward(None))
    raw = env.backend.read("sensordata").clone()
    env._restart(torch.tensor([False, True, False, False]))
    others = torch.tensor([0, 2, 3])
    assert not torch.equal(env.backend.read("sensordata")[others], raw[others]), "or the test says nothing"
    for name, old in before.items():
        assert torch.equal(getattr(env.state, name)[others], old[others]), name
        assert name == "foot_contact" or not torch.equal(getattr(env.state, name)[1], old[1]), name


def test_a_loaded_state_reads_what_was_read() -> None:
    """Sensors lag a physics step behind, so positions alone would not say it."""
    env, twin = (Env(worlds.go2(num_envs=2)) for _ in range(2))
    env.reset(0)
    worlds.random_steps(env, 5)
    twin.load_state_dict(env.state_dict())
    for name in ("joint_torque", "foot_contact", "foot_pos", "foot_vel", "foot_height", "sensordata"):
        assert torch.equal(getattr(twin.state, name), getattr(env.state, name)), name
