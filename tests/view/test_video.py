from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from koboshi import robots
from koboshi.errors import KoboshiError
from koboshi.robots import visual_spec
from koboshi.view import Trajectory, gl
from koboshi.view.overlay import HEADER
from koboshi.view.scene import floor_of, merge_vertices, scene
from koboshi.view.video import _stance, frame_size, render_frames, render_video, save_gif, smooth_path

SIZE = (320, 240)


@pytest.fixture(scope="module")
def need_gl() -> None:
    if gl.choose_gl() is None:
        pytest.skip(gl.gl_hint())


@pytest.fixture(scope="module")
def frames(walk: Callable[..., Trajectory], toy_spec: mujoco.MjSpec, need_gl: None) -> list[np.ndarray]:
    """Before the fault, after it, after it was noticed; the right panel falls at 0.7 s."""
    falls = walk(title="no switch", alarms=(), probability=None, fell_at=0.7, actor=["healthy"] * 51)
    return list(render_frames(toy_spec, [walk(), falls], [0.38, 0.42, 0.52, 0.8], size=SIZE))


def _chips(frame: np.ndarray) -> np.ndarray:
    """The upper left corner of the left panel's scene, where fault and switch are told."""
    return frame[HEADER : HEADER + 80, :230].astype(int)


def _scene(frame: np.ndarray, panel: int) -> np.ndarray:
    left = panel * (SIZE[0] + 4)
    return frame[HEADER : HEADER + SIZE[1], left : left + SIZE[0]].astype(int)


def _reds(picture: np.ndarray) -> int:
    return int(((picture[..., 0] > 150) & (picture[..., 2] < 70)).sum())


def test_a_scene_has_light_and_contrast(frames: list[np.ndarray]) -> None:
    assert frames[0].shape == (*frame_size(2, SIZE)[::-1], 3)
    assert _scene(frames[0], 0).mean() > 60 and _scene(frames[0], 0).std() > 20


def test_fault_and_switch_are_told_when_they_happen(frames: list[np.ndarray]) -> None:
    before, broken, noticed, _ = frames
    assert _reds(_chips(before)) == 0
    assert _reds(_chips(broken)) > 500
    green = (0, 138, 100)
    assert (np.abs(_chips(broken) - green).max(-1) < 40).sum() == 0
    assert (np.abs(_chips(noticed) - green).max(-1) < 40).sum() > 300


def test_the_broken_leg_turns_red(frames: list[np.ndarray]) -> None:
    legs = slice(90, 210)
    assert _reds(_scene(frames[0], 0)[legs]) == 0
    assert _reds(_scene(frames[1], 0)[legs]) > 100


def test_a_fall_dims_the_panel(frames: list[np.ndarray]) -> None:
    assert _scene(frames[3], 1).mean() < 0.85 * _scene(frames[3], 0).mean()


def test_the_video_decodes_to_what_was_drawn(
    walk: Callable[..., Trajectory], toy_spec: mujoco.MjSpec, need_gl: None, tmp_path: Path
) -> None:
    import imageio_ffmpeg

    path, seen = tmp_path / "clips" / "walk.mp4", []
    count = render_video(
        toy_spec,
        [walk(26), walk(13)],
        path,
        fps=25,
        size=SIZE,
        progress=lambda done, of: seen.append((done, of)),
    )
    assert count == 13 and seen[-1] == (13, 13)
    assert [p.name for p in path.parent.iterdir()] == ["walk.mp4"]
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["size"] == frame_size(2, SIZE)
    decoded = [np.frombuffer(frame, np.uint8) for frame in reader]
    assert len(decoded) == 13
    assert all(frame.mean() > 60 for frame in decoded)
    head = path.read_bytes()[:4096]
    assert b"moov" in head  # faststart: players need not read to the end


def test_a_failed_video_leaves_nothing(
    walk: Callable[..., Trajectory], toy_spec: mujoco.MjSpec, need_gl: None, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        render_video(toy_spec, [walk(5)], tmp_path / "walk.mp4", size=SIZE, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_gif(frames: list[np.ndarray], tmp_path: Path) -> None:
    from PIL import Image

    width = save_gif(tmp_path / "walk.gif", frames, width=600, max_bytes=60_000)
    gif = Image.open(tmp_path / "walk.gif")
    assert gif.n_frames == 4 and gif.width == width < 600
    assert (tmp_path / "walk.gif").stat().st_size <= 60_000


def test_bad_panels_are_refused(walk: Callable[..., Trajectory], toy_spec: mujoco.MjSpec) -> None:
    with pytest.raises(KoboshiError, match="1 to 3 panels"):
        next(render_frames(toy_spec, [], [0.0]))
    with pytest.raises(KoboshiError, match="camera"):
        next(render_frames(toy_spec, [walk()], [0.0], camera="sde"))
    with pytest.raises(KoboshiError, match="nq 9"):
        next(render_frames(toy_spec, [walk(qpos=np.ones((51, 26)))], [0.0]))


def test_no_gl_is_one_line(
    walk: Callable[..., Trajectory], toy_spec: mujoco.MjSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "off")
    assert gl.choose_gl() is None
    assert "MUJOCO_GL" in gl.gl_hint()
    with pytest.raises(KoboshiError, match="MUJOCO_GL"):
        next(render_frames(toy_spec, [walk()], [0.0]))


def test_the_first_gl_that_works_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "_works", lambda kind: kind == "osmesa")
    monkeypatch.setattr(gl, "_candidates", lambda: ["egl", "osmesa", "never"])
    monkeypatch.setenv("MUJOCO_GL", "")
    assert gl.choose_gl() == "osmesa"
    gl._probe.cache_clear()


def test_merging_vertices_keeps_the_shape() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1.0, 1, 0.001]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 4, 3], [2, 4, 3]])
    vertices, kept = merge_vertices(corners, faces, 0.01)
    assert len(vertices) == 4
    assert len(kept) == 2  # one repeats another, one has collapsed


DOG = """
<mujoco><worldbody>
  <body name="base" pos="0 0 0.3"><freejoint/><geom type="box" size=".2 .1 .05"/>
    <body name="front" pos=".4 0 -.2"><joint name="front" axis="0 1 0"/><geom size=".03"/></body>
    <body name="rear" pos="-.4 0 -.2"><joint name="rear" axis="0 1 0"/><geom size=".03"/></body>
  </body>
  <body name="far" pos="9 9 0"><geom size=".1"/></body>
</worldbody></mujoco>"""


def test_the_camera_stands_back_from_what_is_long_or_high(toy_spec: mujoco.MjSpec) -> None:
    stand = np.array([0, 0, 0.9, 1, 0, 0, 0, 0, 0.0])
    assert _stance(toy_spec.compile(), 1, stand, 0.9) == (0.9, 0.0)
    turned = np.array([5, 5, 0.3, 0.5**0.5, 0, 0, 0.5**0.5, 0, 0])
    dog = mujoco.MjModel.from_xml_string(DOG)
    assert _stance(dog, 1, turned, 0.3) == pytest.approx((0.75 * 0.8, 90.0))


def _on_plane(toy_spec: mujoco.MjSpec, **plane: object) -> mujoco.MjSpec:
    spec = toy_spec.copy()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), **plane)
    return spec


def test_a_world_a_storey_higher_looks_the_same(
    walk: Callable[..., Trajectory], toy_spec: mujoco.MjSpec, need_gl: None
) -> None:
    low, high = walk(), walk()
    high.qpos[:, 2] += 3.0
    ground, upper = (
        next(render_frames(_on_plane(toy_spec, pos=(0, 0, height)), [t], [0.5], size=SIZE))
        for height, t in ((0.0, low), (3.0, high))
    )
    assert np.abs(_scene(ground, 0) - _scene(upper, 0)).mean() < 1.0
    floating = next(render_frames(toy_spec, [high], [0.5], size=SIZE))
    assert np.abs(_scene(ground, 0) - _scene(floating, 0)).mean() > 5.0


def test_the_floor_lies_where_the_worlds_plane_does(toy_spec: mujoco.MjSpec) -> None:
    half = -np.arctan(0.5) / 2  # rises by half a metre per metre of x
    tilted = {"pos": (0.0, 0.0, 1.0), "quat": (np.cos(half), 0.0, np.sin(half), 0.0)}
    floor = floor_of(scene(_on_plane(toy_spec, **tilted)))
    np.testing.assert_allclose(floor.height(np.array([[0.0, 0.0], [2.0, 7.0], [-2.0, 0.0]])), [1, 2, 0], atol=1e-9)
    assert floor_of(scene(toy_spec)).height(np.array([3.0, 4.0])) == 0


def test_a_robot_of_collision_shapes_is_drawn_beside_other_things(toy_spec: mujoco.MjSpec) -> None:
    spec = toy_spec.copy()
    for geom in spec.geoms:
        geom.group = 3
    spec.worldbody.add_body(name="box").add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.1, 0.1, 0.1))
    model = scene(spec)
    assert model.geom_group[model.geom_bodyid == model.body("base").id].tolist() == [2]
    assert model.geom_group[model.geom_bodyid == model.body("box").id].tolist() == [0]


def test_the_camera_follows_the_robot_and_not_what_else_moves(
    walk: Callable[..., Trajectory], toy_spec: mujoco.MjSpec, need_gl: None
) -> None:
    ball = '<body name="ball" pos="40 0 5"><freejoint/><geom size=".1"/></body><body name="base"'
    among = mujoco.MjSpec.from_string(toy_spec.to_xml().replace('<body name="base"', ball))
    alone = walk()
    away = np.tile([40.0, 0, 5, 1, 0, 0, 0], (len(alone.qpos), 1))
    crowd = replace(alone, qpos=np.hstack((away, alone.qpos)))
    pictures = [next(render_frames(spec, [t], [0.5], size=SIZE)) for spec, t in ((toy_spec, alone), (among, crowd))]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 1.0


def test_a_robot_without_a_free_base_is_refused() -> None:
    body = '<body name="b"><joint name="j"/><geom size=".1"/></body>'
    fixed = mujoco.MjSpec.from_string(f"<mujoco><worldbody>{body}</worldbody></mujoco>")
    t = Trajectory(np.zeros((2, 1)), 0.1, ["j"], "fixed", np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(KoboshiError, match="free joint"):
        next(render_frames(fixed, [t], [0.0]))


@pytest.mark.parametrize("name", [name for name in robots.known() if name != "wheelbiped"])  # which has no mesh
def test_a_robot_on_stage_stands_where_it_stood(name: str) -> None:
    spec = visual_spec(robots.find(name))
    plain, stage = spec.compile(), scene(spec)
    assert stage.nq == plain.nq and stage.njnt == plain.njnt
    assert [stage.joint(i).name for i in range(stage.njnt)] == [plain.joint(i).name for i in range(plain.njnt)]
    assert stage.nmeshface < 0.25 * plain.nmeshface

    def clouds(model: mujoco.MjModel) -> np.ndarray:
        """(bodies, 2, 3): the box around the meshes of each body, world frame."""
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        boxes = {}
        for g in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
            at, count = model.mesh_vertadr[model.geom_dataid[g]], model.mesh_vertnum[model.geom_dataid[g]]
            points = model.mesh_vert[at : at + count] @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g]
            boxes[int(model.geom_bodyid[g])] = (points.min(0), points.max(0))
        return np.array([boxes[b] for b in sorted(boxes)])

    assert np.abs(clouds(stage) - clouds(plain)).max() < 0.009


def test_smoothing_keeps_lines_and_ends() -> None:
    line = np.stack([np.arange(200.0), np.full(200, 3.0)], axis=1)
    smooth = smooth_path(line, 5)
    np.testing.assert_allclose(smooth[20:-20], line[20:-20], atol=1e-9)
    np.testing.assert_allclose(smooth[:, 1], 3)
