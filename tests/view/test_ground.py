"""Rough ground to look at: the map of a grid, and a stage without a floor that would fill its pits."""

from __future__ import annotations

import io
from pathlib import Path

import imageio.v3 as iio
import mujoco
import numpy as np
import pytest

from koboshi.errors import KoboshiError
from koboshi.stages import ground_picture
from koboshi.tasks import make_task
from koboshi.terrain import GridCfg, PlaneCfg
from koboshi.terrain.shapes import SlopeCfg, StairsCfg
from koboshi.view.gl import Offscreen, choose_gl
from koboshi.view.ground import ground_map
from koboshi.view.scene import floor_of, has_floor, scene
from koboshi.view.trajectory import Trajectory
from koboshi.view.video import CAMERAS, _Panel


def test_the_map_shows_high_ground_warm_and_low_ground_cold(tmp_path: Path) -> None:
    """Two levels of two types, 8 m each: the lower left cell lies 1 m deep, the upper right one is 1 m high."""
    heights = np.zeros((160, 160))
    heights[:80, :80], heights[80:, 80:] = -1.0, 1.0
    path = tmp_path / "map.png"
    data = ground_map(heights, (16.0, 16.0), 2, ["pit", "hill"], path)
    assert path.read_bytes() == data
    picture = iio.imread(io.BytesIO(data))[..., :3].astype(float)
    high, wide = picture.shape[:2]
    low, top = picture[int(0.62 * high), int(0.25 * wide)], picture[int(0.28 * high), int(0.6 * wide)]
    assert low[2] > low[0] + 20 and top[0] > top[2] + 20


def test_a_plane_has_no_map(tmp_path: Path) -> None:
    with pytest.raises(KoboshiError, match="the ground of task 'go2-flat' is one plane"):
        ground_picture.picture(make_task("go2-flat"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("types", [{"up": StairsCfg()}, {"up": StairsCfg(), "slope": SlopeCfg()}])
def test_a_stage_of_boxes_has_no_floor(types: dict) -> None:
    spec = mujoco.MjSpec()
    GridCfg(types, levels=1, columns=len(types)).build().draw_on(spec)
    model = scene(spec)
    assert mujoco.mjtGeom.mjGEOM_PLANE not in model.geom_type
    assert not has_floor(model) and floor_of(model).point.tolist() == [0, 0, 0]
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    geom, down = np.zeros(1, np.int32), np.array([0.0, 0.0, -1.0])
    y = -4.0 if len(types) == 2 else 0.0
    depth = mujoco.mj_ray(model, data, np.array([0.0, y, 5.0]), down, None, 1, -1, geom)
    assert depth == pytest.approx(5.0 + 7 * 0.05)


@pytest.mark.skipif(choose_gl() is None, reason="no OpenGL")
def test_on_a_large_ground_what_is_near_is_drawn_too() -> None:
    """A red ball in a cell of thousands of boxes, on a ground whose extent is hundreds of metres."""
    spec = mujoco.MjSpec()
    GridCfg({"up": StairsCfg()}, levels=10, columns=20).build().draw_on(spec)
    ball = spec.worldbody.add_body(name="ball", pos=(4.0, 4.0, 2.0))
    ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.2, 0, 0), rgba=(1, 0, 0, 1))
    model = scene(spec)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    view = mujoco.MjvCamera()
    view.lookat[:], view.distance, view.elevation = (4.0, 4.0, 2.0), 1.0, -40.0
    with Offscreen(model, 64, 48) as screen:
        picture = screen.draw(data, view).astype(int)
        assert model.ngeom > 2000 and screen.scene.ngeom >= model.ngeom
    assert picture[24, 32, 0] > 100 + picture[24, 32, 1]


def test_the_camera_climbs_with_the_robot_and_looks_over_the_steps() -> None:
    """On a floor it stays at one height, whatever the robot's base does."""
    for ground, rises in ((GridCfg({"up": StairsCfg()}, levels=1, columns=1), True), (PlaneCfg(), False)):
        spec = mujoco.MjSpec()
        ball = spec.worldbody.add_body(name="ball", pos=(0, 0, 1))
        ball.add_freejoint()
        ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.1, 0, 0))
        arm = ball.add_body(name="arm", pos=(0, 0, -0.5))
        arm.add_joint(name="hinge")
        arm.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.1, 0, 0))
        ground.build().draw_on(spec)
        qpos = np.tile([0.0, 0, 1, 1, 0, 0, 0, 0], (200, 1))
        qpos[100:, 2] = 3.0
        still = np.zeros((200, 3))
        walk = Trajectory(qpos, 0.02, ["hinge"], "ball", still, still)
        panel = _Panel(scene(spec), walk, (480, 360), CAMERAS["three_quarter"], 4.0)
        first, last = panel._view(0), panel._view(199)
        assert last.lookat[2] - first.lookat[2] == pytest.approx(2.0 if rises else 0.0)
        assert first.elevation == (-42.0 if rises else -11.0)


def test_a_plane_is_drawn_as_our_floor() -> None:
    spec = mujoco.MjSpec()
    PlaneCfg(0.4).build().draw_on(spec)
    model = scene(spec)
    assert has_floor(model) and floor_of(model).point.tolist() == [0, 0, 0.4]
