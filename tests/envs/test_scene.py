"""The scene: heights above the ground, origins, other bodies, and readings that are true after a reset."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch
import worlds

from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import BodyCfg, EventTerm, ObsGroup, ObsTerm, SceneCfg
from koboshi.envs.terms import events, observations
from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_GO2
from koboshi.terrain import PlaneCfg

N = 4
FLAT, HIGH, SLOPE = PlaneCfg(), PlaneCfg(height=0.7), PlaneCfg(height=0.7, slope=0.2)
STEP = BodyCfg("box", (0.1, 0.1, 0.05), (1.5, 0.0, 0.05))
TARGET = BodyCfg("sphere", (0.1,), (2.0, 0.5, 1.0), motion="mocap", collides=False)
BALL = BodyCfg("sphere", (0.1,), (-2.0, 0.0, 1.0), motion="free", mass=0.4)


def on(ground: PlaneCfg, cfg: EnvCfg, **bodies: BodyCfg) -> Env:
    return Env(worlds.clean(replace(cfg, scene=SceneCfg(ground, dict(bodies)))))


@pytest.mark.parametrize("ground", [FLAT, HIGH, SLOPE])
def test_robots_begin_at_their_origin_and_heights_are_above_the_ground(ground: PlaneCfg) -> None:
    env = on(ground, worlds.go2())
    obs = env.reset(0)
    torch.testing.assert_close(env.scene.origins, torch.tensor([[0.0, 0.0, ground.height]]).repeat(N, 1))
    expected = torch.tensor([0.0, 0.0, ground.height + UNITREE_GO2.base_height])
    torch.testing.assert_close(env.state.base_pos, expected.repeat(N, 1))
    torch.testing.assert_close(env.state.base_height, torch.full((N,), UNITREE_GO2.base_height))
    height = env.obs_spec["critic"].place("base_height")
    torch.testing.assert_close(obs["critic"][:, height], torch.full((N, 1), UNITREE_GO2.base_height))
    feet = env.state.foot_pos
    torch.testing.assert_close(env.state.foot_height, feet[..., 2] - ground.height - ground.slope * feet[..., 0])


def test_high_ground_changes_nothing_but_the_height() -> None:
    """A walk on a plane at 0.7 m is the walk on one at 0, 0.7 m higher: nothing terminates, nothing differs."""
    low, high = (on(ground, worlds.h1()) for ground in (FLAT, HIGH))
    low.reset(1), high.reset(1)
    for a, b in zip(worlds.random_steps(low, 15), worlds.random_steps(high, 15), strict=True):
        assert not (a.terminated | b.terminated).any()
        torch.testing.assert_close(a.obs["critic"], b.obs["critic"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.reward, b.reward, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(low.state.foot_height, high.state.foot_height, atol=1e-5, rtol=0)
    torch.testing.assert_close(low.state.base_pos[:, 2] + 0.7, high.state.base_pos[:, 2], atol=1e-5, rtol=0)
    assert low.state.foot_contact.any()


@pytest.mark.parametrize(("x", "above"), [(0.0, 0.61), (0.0, 0.59), (3.0, 0.61), (3.0, 0.59), (-2.0, 0.59)])
def test_a_fall_is_measured_above_the_ground_under_the_robot(x: float, above: float) -> None:
    """H1 has fallen below 0.6 m. On the slope 3 m on, the ground is 0.6 m higher."""
    cfg = worlds.h1(events={})
    env = on(SLOPE, replace(cfg, terminations={"base_low": cfg.terminations["base_low"]}))
    env.reset(0)
    env.qpos[1, 0], env.qpos[1, 2] = x, 0.7 + 0.2 * x + above + 0.005  # it sinks a little within the step
    env.qpos[1, 3:7] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    step = env.step(worlds.zeros(env))
    assert step.terminated.tolist() == [False, above < 0.6, False, False]


def test_a_tilt_terminates() -> None:
    """The limit is the cosine 0.5: 60°."""
    env = on(FLAT, worlds.h1(events={}))
    env.reset(0)
    for row, degrees in enumerate((55, 65, -65, 55)):
        half = np.deg2rad(degrees) / 2
        env.qpos[row, 2] = 2.0
        env.qpos[row, 3:7] = torch.tensor([np.cos(half), np.sin(half) * (row < 3), np.sin(half) * (row == 3), 0.0])
    assert env.step(worlds.zeros(env)).terminated.tolist() == [False, True, True, False]


@pytest.mark.parametrize("ground", [FLAT, SLOPE])
def test_readings_are_true_at_a_reset(ground: PlaneCfg) -> None:
    """At the reset's own observation, and at that of one environment among others in mid-episode."""
    feet = {"pos": ObsTerm(lambda env: env.state.foot_pos.flatten(1)), "contact": ObsTerm(observations.foot_contact)}
    cfg = worlds.go2()
    env = on(ground, replace(cfg, observations=cfg.observations | {"feet": ObsGroup(feet, noise=False)}))
    obs = env.reset(0)
    assert_true(env, obs["feet"], range(N))
    worlds.random_steps(env, 7)
    env.episode_step[2] = env.cfg.max_episode_length - 1
    step = env.step(worlds.zeros(env))
    assert step.truncated.tolist() == [False, False, True, False]
    assert_true(env, step.obs["feet"], [2])
    assert not torch.equal(step.obs["feet"][2], step.final_obs["feet"][2])
    others = [0, 1, 3]
    assert torch.equal(step.obs["feet"][others], step.final_obs["feet"][others])


def assert_true(env: Env, feet: torch.Tensor, rows: object) -> None:
    """The feet's places and contacts are MuJoCo's, of a fresh `mj_forward`."""
    for row in rows:
        data = mujoco.MjData(env.model)
        data.qpos[:], data.qvel[:], data.ctrl[:] = env.qpos[row], env.qvel[row], env.ctrl[row]
        mujoco.mj_forward(env.model, data)
        names = [foot.name for foot in env.robot.feet]
        expected = np.concatenate([data.sensor(f"{name}_pos").data for name in names])
        np.testing.assert_allclose(feet[row, : 3 * len(names)].numpy(), expected, atol=1e-6)
        contact = [data.sensor(f"{name}_contact").data[0] > 1.0 for name in names]
        assert feet[row, 3 * len(names) :].tolist() == contact
        np.testing.assert_allclose(env.state.foot_pos[row].flatten().numpy(), expected, atol=1e-6)


def test_a_free_body_before_the_robot_shifts_nothing() -> None:
    """In the second model a ball's seven numbers come first; it hangs 5 m up and falls."""
    one, other = (Env(worlds.clean(worlds.rover(robot))) for robot in (worlds.ROVER, worlds.SECOND))
    assert (one.joints.qpos, other.joints.qpos) == (slice(7, 11), slice(14, 18))
    first, second = one.reset(5), other.reset(5)
    assert all(torch.equal(first[group], second[group]) for group in first)
    steps = zip(worlds.random_steps(one, 40), worlds.random_steps(other, 40), strict=True)
    for a, b in steps:
        for group, value in a.obs.items():
            torch.testing.assert_close(b.obs[group], value, atol=1e-4, rtol=1e-3, msg=group)
        torch.testing.assert_close(a.reward, b.reward, atol=1e-5, rtol=1e-4)
    assert other.qpos[:, 2].max() < 4.5, "the ball falls"
    fixed = one.state.foot_contact.any(), one.state.joint_vel.abs().max() > 1
    assert all(fixed), "the rover stands still: the test says little"


def test_events_reach_the_robot_and_not_the_body_before_it() -> None:
    cfg = worlds.rover(worlds.SECOND)
    shove = {"push": EventTerm(events.push, mode="interval", interval_s=(0.02, 0.02), params={"velocity": 3.0})}
    env = Env(replace(cfg, events=cfg.events | shove))
    env.reset(0)
    assert torch.equal(env.qpos[:, :7], torch.tensor([[2.0, 0, 5, 1, 0, 0, 0]]).double().repeat(N, 1))
    before = env.state.base_lin_vel
    for _ in range(5):
        env.step(worlds.zeros(env))
    assert torch.equal(env.qvel[:, :2], torch.zeros(N, 2).double()), "the ball only falls"
    assert (env.state.base_lin_vel - before).norm(dim=1).min() > 0.1


@pytest.mark.parametrize("ground", [FLAT, HIGH])
def test_other_bodies(ground: PlaneCfg) -> None:
    """Where they were put, relative to the origin; the robot's columns stay, and it moves as without them."""
    bodies = {"step": STEP, "target": TARGET, "ball": BALL}
    env, alone = on(ground, worlds.go2(), **bodies), on(ground, worlds.go2())
    first, second = env.reset(2), alone.reset(2)
    assert all(torch.equal(first[group], second[group]) for group in first)
    for name, body in bodies.items():
        expected = torch.tensor(body.pos) + torch.tensor([0.0, 0.0, ground.height])
        torch.testing.assert_close(env.scene.body_pos(name), expected.repeat(N, 1), msg=name)
    assert env.model.body("step").mocapid[0] == -1 and env.model.body("target").mocapid[0] >= 0
    assert env.model.body("ball").mass[0] == pytest.approx(0.4)
    for a, b in zip(worlds.random_steps(env, 10), worlds.random_steps(alone, 10), strict=True):
        torch.testing.assert_close(a.obs["critic"], b.obs["critic"], atol=1e-4, rtol=1e-3)
    fallen = 1.0 + ground.height - env.scene.body_pos("ball")[:, 2]
    seconds = 10 * 0.02
    torch.testing.assert_close(fallen, torch.full((N,), 9.81 / 2 * seconds**2), atol=0.02, rtol=0)
    with pytest.raises(KoboshiError, match="no body of the scene 'bal'; did you mean 'ball'"):
        env.scene.body_pos("bal")


def test_a_free_body_comes_back_at_a_reset_and_rests_on_the_ground() -> None:
    env = on(HIGH, worlds.go2(episode_length_s=1.2), ball=BALL)
    env.reset(0)
    for _ in range(59):
        env.step(worlds.zeros(env))
    torch.testing.assert_close(env.scene.body_pos("ball")[:, 2], torch.full((N,), 0.8), atol=0.02, rtol=0)
    assert env.step(worlds.zeros(env)).truncated.all()
    torch.testing.assert_close(env.scene.body_pos("ball"), torch.tensor([-2.0, 0.0, 1.7]).repeat(N, 1))


def test_a_foot_stands_on_a_static_box() -> None:
    """A plate under the robot lifts it; the height above the ground says so."""
    plate = BodyCfg("box", (0.5, 0.5, 0.05), (0.0, 0.0, 0.05))
    env = on(FLAT, worlds.go2(events={}), plate=plate)
    flat = on(FLAT, worlds.go2(events={}))
    env.reset(0), flat.reset(0)
    env.qpos[:, 2] += 0.1
    for _ in range(50):
        env.step(worlds.zeros(env)), flat.step(worlds.zeros(flat))
    assert env.state.foot_contact.all() and flat.state.foot_contact.all()
    torch.testing.assert_close(env.state.base_height, flat.state.base_height + 0.1, atol=0.005, rtol=0)
    torch.testing.assert_close(env.state.foot_height, flat.state.foot_height + 0.1, atol=0.005, rtol=0)
