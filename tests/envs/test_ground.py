"""A grid under robots: each simulation holds the ground around its robot, and levels follow from what was walked."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
import worlds

from koboshi.envs import Env
from koboshi.envs.cfg import BodyCfg, CurriculumTerm, ObsGroup, ObsTerm, SceneCfg, TerminationTerm
from koboshi.envs.terms import curriculum, observations, rewards, terminations
from koboshi.errors import KoboshiError
from koboshi.robots import physics_spec
from koboshi.tasks import known, make_task
from koboshi.terrain import GridCfg
from koboshi.terrain.shapes import AnySubTerrain, BoxesCfg, GapsCfg, SlopeCfg, StairsCfg

DEVICE = os.environ.get("KOBOSHI_TEST_DEVICE", "cpu")
TYPES: dict[str, AnySubTerrain] = {
    "up": StairsCfg(),
    "hill": SlopeCfg(up=False, noise=(0.02, 0.05)),
    "boxes": BoxesCfg(),
    "down": StairsCfg(up=False),
    "gaps": GapsCfg(),
}
GROUND = GridCfg(dict(TYPES), levels=3, columns=5, first_level=None)
BOXES = GridCfg({"up": StairsCfg(), "boxes": BoxesCfg()}, levels=2, columns=2)


def on(ground: GridCfg = GROUND, n: int = 10, **changes: Any) -> Env:
    return Env(worlds.clean(replace(worlds.go2(), scene=SceneCfg(ground), num_envs=n, **changes)))


def simulated(env: Env, i: int) -> mujoco.MjModel:
    """The model of one environment, its geoms where they are there."""
    spec = physics_spec(env.robot)
    env.scene.ground.add_to(spec)
    model = spec.compile()
    for name in ("geom_pos", "geom_size", "geom_rbound", "geom_aabb"):
        getattr(model, name)[:] = env.backend.expand(name)[i].numpy()
    return model


def put(env: Env, x: Any, y: Any) -> None:
    """Robots above world x, y, level and at rest."""
    everyone = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    place = torch.zeros(env.num_envs, 3, device=env.device)
    place[:, 0], place[:, 1] = torch.as_tensor(x), torch.as_tensor(y)
    place[:, 2] = env.scene.height(place) + 0.4
    env.place(everyone, "base_pos", place)
    env.qvel.zero_()
    env.scene.follow(place)


@pytest.mark.parametrize("ground", [GROUND, BOXES])
def test_a_robot_meets_the_ground_within_its_reach(ground: GridCfg) -> None:
    """Rays in each environment's own physics against the look-up, all over the grid and outside."""
    env, rng = on(ground, 40), np.random.default_rng(0)
    env.reset(0)
    place = rng.uniform(-1, 1, (40, 2)) * (ground.levels * 4 + 2, ground.columns * 4 + 2)
    put(env, place[:, 0], place[:, 1])
    for i, centre in enumerate(place):
        points = centre + rng.uniform(-1, 1, (40, 2)) * ground.reach
        model = simulated(env, i)
        data = mujoco.MjData(model)
        data.qpos[2] = -30.0  # out of the way
        mujoco.mj_forward(model, data)
        geom, down = np.zeros(1, np.int32), np.array([0.0, 0.0, -1.0])
        ends = [20 - mujoco.mj_ray(model, data, np.array([*p, 20.0]), down, None, 1, -1, geom) for p in points]
        np.testing.assert_allclose(ends, env.scene.height(torch.from_numpy(points)), atol=2e-5)


def test_a_scan_is_of_where_the_robot_is_after_falls_and_resets() -> None:
    """It is looked up once a step, and after resets for the robots that were placed anew alone."""
    sizes = ((1.6, 1.0), (0.4, 0.2))
    terms = {f"scan {size[0]}": ObsTerm(observations.height_scan, {"size": size}) for size in sizes}
    env = on(n=20, episode_length_s=0.3, random_initial_length=True, observations={"policy": ObsGroup(terms)})
    env.reset(0)
    some = 0
    for _ in range(20):
        step = env.step(torch.randn(20, env.action_space.dim))
        some += bool(0 < (step.terminated | step.truncated).sum() < 20)
        for size in sizes:
            now = env.scene.scan(env.state.base_pos, env.state.heading, size, 0.1)
            assert torch.equal(env.state.ground_scan(size, 0.1), now)
    assert some > 5


def test_contacts_are_those_with_all_of_the_ground() -> None:
    """Robots dropped all over four cells: after each control step velocities are those of plain MuJoCo with every box
    at once. Cells' edges, where boxes overlap, are left out."""
    env = on(BOXES, 16)
    env.reset(0)
    spec = physics_spec(env.robot)
    env.scene.ground.draw_on(spec)
    for geom in spec.worldbody.geoms:
        geom.contype, geom.conaffinity = 1, 2
        geom.friction = (1.0, 0.005, 0.0001)
    whole = spec.compile()
    for name in ("timestep", "integrator", "iterations", "ls_iterations", "disableflags"):
        setattr(whole.opt, name, getattr(env.model.opt, name))
    data, rng, touched = mujoco.MjData(whole), np.random.default_rng(1), 0
    for _ in range(6):
        cells = env.scene.ground.starts.view(-1, 3)[rng.integers(0, 4, 16)]
        inside = cells[:, :2] + torch.from_numpy(rng.uniform(-2.9, 2.9, (16, 2)))
        put(env, inside[:, 0], inside[:, 1])
        for _ in range(8):
            before = env.qpos.clone(), env.qvel.clone(), env.backend.read("qacc_warmstart").clone()
            env.step(torch.zeros(16, 12))
            for i in range(0, 16, 5):
                data.qpos[:], data.qvel[:], data.qacc_warmstart[:] = (x[i].numpy() for x in before)
                data.ctrl[:] = env.ctrl[i].numpy()
                for _ in range(4):
                    mujoco.mj_step(whole, data)
                touched += data.ncon > 0
                np.testing.assert_allclose(env.qvel[i].numpy(), data.qvel, atol=1e-4)
    assert touched > 50


def test_another_window_is_not_felt() -> None:
    """Robots that stand at a tile's edge are moved over it by 0.1 m, onto ground that other geoms make: they stand on
    as they stood."""
    env = on(BOXES, 4)
    env.reset(0)
    put(env, [-0.05, -0.05, 0.05, 7.95], [-4.0, 4.0, -4.0, 4.0])
    for _ in range(50):
        env.step(torch.zeros(4, 12))
    stood, before = env.state.base_height.clone(), env.scene.ground.tile_of(env.state.base_pos)
    env.qpos[:, env.joints.base_pos][:, 0] += torch.tensor([0.1, 0.1, -0.1, 0.1])
    for _ in range(5):
        env.step(torch.zeros(4, 12))
        assert env.state.foot_contact.all()
        torch.testing.assert_close(env.state.base_height, stood, atol=1e-3, rtol=0)
    assert not (env.scene.ground.tile_of(env.state.base_pos) == before).any()


def test_what_was_held_is_restored() -> None:
    env, other = on(n=6), on(n=6)
    env.reset(3), other.reset(0)
    worlds.random_steps(env, 5)
    other.load_state_dict(env.state_dict())
    for one, two in zip(worlds.random_steps(env, 8), worlds.random_steps(other, 8), strict=True):
        torch.testing.assert_close(one.obs["critic"], two.obs["critic"], atol=0, rtol=0)
    torch.testing.assert_close(other.scene.origins, env.scene.origins)


def moved(env: Env, walked: list[float]) -> list[int]:
    """Levels after episodes that ended so many metres from where they began."""
    everyone = torch.ones(env.num_envs, dtype=torch.bool)
    env.state.base_pos[:] = env.scene.origins + torch.tensor([[w, 0.0, 0.0] for w in walked])
    env.command.value[:] = torch.tensor([0.5, 0.0, 0.0])
    env.total_steps = 1
    curriculum.terrain_levels(env, everyone)
    return env.scene.levels.level.tolist()


def test_levels_follow_from_what_was_walked() -> None:
    """Cells of 8 m: up beyond 4 m. Episodes of 6 s at 0.5 m/s ask for 3 m: down below 1.5 m."""
    env = on(replace(GROUND, first_level=0), 4, episode_length_s=6.0)
    env.reset(0)
    env.scene.levels.level = torch.tensor([0, 1, 1, 1])
    assert moved(env, [0.2, 1.4, 1.6, 4.1]) == [0, 0, 1, 2]
    env.scene.levels.level = torch.tensor([1, 1, 1, 1])
    only = torch.tensor([True, False, False, False])
    env.state.base_pos[:] = env.scene.origins
    curriculum.terrain_levels(env, only)
    assert env.scene.levels.level.tolist() == [0, 1, 1, 1]


def test_an_episode_is_judged_by_the_command_that_it_had() -> None:
    """Commands are due anew in the very step in which time is up. Who was told to stand stays on its level."""
    terms = {"terrain": CurriculumTerm(curriculum.terrain_levels)}
    cfg = on(episode_length_s=0.1).cfg
    command = replace(cfg.command, resampling_time_s=(0.1, 0.1), standing_fraction=1.0)
    out = {"time_out": TerminationTerm(terminations.time_out, time_out=True)}
    env = Env(replace(cfg, command=command, curriculum=terms, terminations=out))
    env.reset(0)
    before, told = env.scene.levels.level.tolist(), list[float]()
    env.cfg.curriculum["seen"] = CurriculumTerm(lambda env, mask: told.append(float(env.command.value.abs().max())))
    env.command.cfg = replace(command, standing_fraction=0.0)
    for _ in range(5):
        step = env.step(torch.zeros(10, env.action_space.dim))
    assert step.truncated.all() and told == [0.0] and max(before) > 0
    assert env.scene.levels.level.tolist() == before and env.command.value.abs().max() > 0


def test_who_crossed_a_cell_goes_on_to_the_next_level_at_once() -> None:
    end = {"crossed": TerminationTerm(terminations.crossed_cell, time_out=True)}
    terms = {"terrain": CurriculumTerm(curriculum.terrain_levels)}
    env = on(replace(GROUND, first_level=0), 3, terminations=end, curriculum=terms)
    env.reset(0)
    env.place(torch.tensor([False, True, True]), "base_pos", env.scene.origins + torch.tensor([[0.0, 0.0, 2.0]]))
    env.place(torch.tensor([False, False, True]), "base_pos", env.scene.origins + torch.tensor([[3.0, 3.0, 2.0]]))
    env.backend.forward(torch.ones(3, dtype=torch.bool))
    step = env.step(torch.zeros(3, env.action_space.dim))
    assert step.truncated.tolist() == [False, False, True] and not step.terminated.any()
    assert env.scene.levels.level.tolist() == [0, 0, 1]
    torch.testing.assert_close(env.state.base_pos[:, :2], env.scene.origins[:, :2], atol=0.02, rtol=0)


def test_a_foot_before_a_riser_has_yet_to_rise() -> None:
    """Go2s look askew on stairs of 0.1 m, and slopes are no risers; the ground ahead is looked at point by point."""
    stairs = GridCfg({"up": StairsCfg(riser=(0.1, 0.1))}, levels=2, columns=1, first_level=0)
    env = on(stairs, 40)
    env.reset(0)
    everyone = torch.ones(40, dtype=torch.bool)
    along = torch.linspace(0.0, 3.0, 40)[:, None] * torch.tensor([[1.0, 0.0, 0.0]])
    env.place(everyone, "base_pos", env.scene.origins + along + torch.tensor([0.0, 0.0, 2.0]))
    env.place(everyone, "base_quat", torch.tensor([[math.cos(0.2), 0.0, 0.0, math.sin(0.2)]]).expand(40, -1))
    env.backend.forward(everyone)
    env.state.update()
    found = rewards.feet_below_step(env, reach=0.2, stands=2.0)
    expected = torch.zeros(40)
    for robot, feet in enumerate(env.state.foot_pos):
        for x, y, z in feet.tolist():
            ahead = [[x + d * 0.04 * math.cos(0.4), y + d * 0.04 * math.sin(0.4)] for d in range(6)]
            height = env.scene.height(torch.tensor(ahead)).tolist()
            top = height[0] + sum(max(0.0, there - here) for here, there in itertools.pairwise(height))
            expected[robot] += max(0.0, top + 2.0 - z)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert found.max() - found.min() > 0.3, "some stand before a riser"
    hill = on(GridCfg({"hill": SlopeCfg(slope=(0.4, 0.4), up=False)}, levels=2, columns=1, first_level=0), 4)
    hill.reset(0)
    away = torch.tensor([1.0, 0.0, 0.0])
    hill.place(torch.ones(4, dtype=torch.bool), "base_pos", hill.scene.origins + 1.5 * away)
    hill.backend.forward()
    hill.state.update()
    stands = float(hill.state.foot_height.min())
    assert rewards.feet_below_step(hill, 0.2, stands).max() < 1e-5


def test_every_task_whose_levels_rise_goes_on_at_once() -> None:
    """And no other: a robot that broke is watched until it falls or time is up."""
    for name in known():
        env = make_task(name).env
        assert ("crossed_cell" in env.terminations) == ("terrain_levels" in env.curriculum), name
    assert "crossed_cell" not in make_task("go2-rough-faults").env.terminations


def test_a_plane_has_no_cells_to_cross() -> None:
    env = Env(worlds.clean(worlds.go2()))
    with pytest.raises(KoboshiError, match="crossed_cell has no effect: the ground is one plane"):
        terminations.crossed_cell(env)


def test_robots_begin_where_their_level_is_and_it_is_logged() -> None:
    terms = {"terrain": CurriculumTerm(curriculum.terrain_levels)}
    env = on(replace(GROUND, first_level=0), 5, curriculum=terms)
    env.reset(0)
    torch.testing.assert_close(env.state.base_pos[:, :2], env.scene.ground.starts[0, :, :2])
    # On rough ground they begin above the highest point around the middle.
    above = env.state.base_height - env.robot.base_height
    assert above[[0, 2, 3, 4]].abs().max() < 1e-5 and 0 <= above[1] < 0.04
    assert env.pop_log()["terrain/level"] == 0.0
    env.scene.levels.level = torch.full((5,), 2)
    env.reset(0)
    assert env.pop_log()["terrain/level/up"] == 0.0


def test_a_curriculum_of_levels_needs_levels() -> None:
    env = Env(worlds.clean(worlds.go2()))
    env.reset(0)
    with pytest.raises(KoboshiError, match="terrain_levels has no effect: the ground has one level"):
        curriculum.terrain_levels(env, torch.ones(env.num_envs, dtype=torch.bool))


SCAN, FOOT = {"size": (0.4, 0.2), "resolution": 0.2}, {"size": (0.2, 0.0), "resolution": 0.1}


def scanning(n: int = 10, ground: GridCfg = GROUND, **changes: Any) -> Env:
    terms = {
        "height": ObsTerm(observations.height_scan, SCAN),
        "ray": ObsTerm(observations.ray_scan, SCAN),
        "foot": ObsTerm(observations.foot_scan, FOOT),
        "wide": ObsTerm(observations.height_scan),
    }
    return on(ground, n, observations={"policy": ObsGroup(terms)}, **changes)


def seen(env: Env, name: str, obs: torch.Tensor) -> torch.Tensor:
    return obs[:, env.obs_spec["policy"].place(name)]


def test_scans_by_hand() -> None:
    """At the top of stairs of 0.1 m that go down from 1.2 m on; the robot looks along y."""
    ground = GridCfg({"down": StairsCfg(up=False, riser=(0.1, 0.1))}, levels=1, columns=1)
    env = scanning(1, ground)
    env.reset(0)
    assert [entry.width for entry in env.layouts["policy"]] == [6, 6, 12, 187]
    put(env, 0.0, 1.1)
    env.place(torch.tensor([True]), "base_quat", torch.tensor([[0.5**0.5, 0, 0, 0.5**0.5]]))
    env.state.refresh_motion(torch.tensor([False]))
    # Ahead, 0.2 m further along y, the ground is a step lower; to the left, along -x, it is level.
    expected = torch.tensor([[0.4, 0.4, 0.4, 0.4, 0.5, 0.5]])
    torch.testing.assert_close(observations.height_scan(env, **SCAN), expected, atol=1e-5, rtol=0)
    env.place(torch.tensor([True]), "base_quat", torch.tensor([[1.0, 0, 0, 0]]))
    env.state.refresh_motion(torch.tensor([False]))
    # y grows fastest: at 1.0 m, and at 1.2 m, where the step is.
    put(env, 0.0, 1.15)
    env.state.refresh_motion(torch.tensor([False]))
    expected = torch.tensor([[0.4, 0.5]]).repeat(1, 3)
    torch.testing.assert_close(observations.height_scan(env, **SCAN), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["cpu", "warp"])
def test_rays_see_what_the_look_up_says(backend: str) -> None:
    """On every type of ground, robots standing and walking about."""
    if backend == "warp":
        pytest.importorskip("mujoco_warp")
    cfg = worlds.go2()
    env = scanning(10, sim=replace(cfg.sim, backend=backend, device=DEVICE if backend == "warp" else "cpu"))
    env.reset(0)
    for step in worlds.random_steps(env, 4):
        looked, met = (seen(env, name, step.obs["policy"]) for name in ("height", "ray"))
        torch.testing.assert_close(looked, met, atol=1e-4, rtol=0)
    assert looked.std() > 0.01


def test_rays_see_bodies_too() -> None:
    box = BodyCfg("box", (0.05, 0.05, 0.3), (0.2, 0.1, 0.0))
    env = Env(worlds.clean(replace(worlds.go2(), scene=SceneCfg(bodies={"box": box}), num_envs=1)))
    env.reset(0)
    place, high = torch.tensor([[0.0, 0.0, 0.5]]), torch.zeros(1)
    met = env.scene.ray_scan(env.backend, place, high, **SCAN)
    torch.testing.assert_close(met, torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5, 0.2]]), atol=1e-5, rtol=0)


def test_scans_mirror() -> None:
    """A robot on stairs that are the same to both sides sees the mirrored scan when it and its place are mirrored."""
    env = scanning(2, replace(BOXES, columns=1, types={"up": StairsCfg()}))
    env.reset(0)
    put(env, [-6.1, -6.1], [0.7, -0.7])
    turn = torch.tensor([0.4, -0.4])
    quat = torch.stack(((turn / 2).cos(), torch.zeros(2), torch.zeros(2), (turn / 2).sin()), 1)
    env.place(torch.ones(2, dtype=torch.bool), "base_quat", quat)
    env.place(torch.ones(2, dtype=torch.bool), "qpos", env.default_joint_pos.expand(2, -1))
    env.backend.forward()
    env.state.restart(torch.ones(2, dtype=torch.bool))
    left, right = env.observations.compute()["policy"]
    ids, signs = env.mirror_map(["policy"]).obs["policy"]
    torch.testing.assert_close(left[ids] * signs, right, atol=1e-4, rtol=0)
    assert (left - right).abs().max() > 0.1


def test_scans_that_do_not_fit_are_refused() -> None:
    env = on(n=1)
    with pytest.raises(KoboshiError, match="a scan of 1.0 by 0.25 m has no points 0.1 m apart"):
        observations.height_scan(env, (1.0, 0.25), 0.1)


def test_both_backends_stand_on_the_same_ground() -> None:
    pytest.importorskip("mujoco_warp")
    heights = []
    for backend in ("cpu", "warp"):
        sim = replace(worlds.go2().sim, backend=backend, device=DEVICE if backend == "warp" else "cpu")
        env = on(n=5, sim=sim)
        env.reset(0)
        starts = env.scene.levels.origins.to("cpu") + torch.tensor([1.6, 0.3, 0.0])
        put(env, starts[:, 0], starts[:, 1])
        for _ in range(20):
            env.step(torch.zeros(5, 12, device=env.device))
        heights.append(env.state.base_pos[:, 2].cpu())
    torch.testing.assert_close(*heights, atol=0.01, rtol=0)
    assert heights[0].max() - heights[0].min() > 0.3
