"""Side-by-side videos of recorded trajectories: H.264 that opens anywhere; strips and GIFs for a README."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koboshi.errors import KoboshiError, unknown
from koboshi.robots.maps import free_joint_columns
from koboshi.runs import atomic_path, write_atomic
from koboshi.view.gl import Offscreen
from koboshi.view.overlay import HEADER, STRIP, PanelOverlay
from koboshi.view.scene import add_marker, add_shadow, floor_of, has_floor, legs_of, scene, tint
from koboshi.view.trajectory import Trajectory

Frame = NDArray[np.uint8]
Progress = Callable[[int, int], None]
_GAP = 4
_OVER_STAIRS = -42.0
"""Degrees; a camera that looks less steeply stands within the steps around a robot at the bottom of stairs."""
_SMOOTH = 0.3
"""Seconds: how slowly the camera follows the base."""


@dataclass(frozen=True)
class Camera:
    """Where the camera stands, seen from the robot; it follows the base and never turns with it."""

    azimuth: float
    """Degrees from the robot's first heading; -90 shows its left side, 180 its face."""
    elevation: float = -11.0
    """Degrees; negative looks down."""
    distance: float = 3.1
    """In sizes of the robot (see `_size`; H1: about 1 m)."""


CAMERAS = {
    "three_quarter": Camera(azimuth=-128.0),
    "side": Camera(azimuth=-90.0, elevation=-7.0),
    "front": Camera(azimuth=180.0, elevation=-7.0),
    "back": Camera(azimuth=0.0),
    "top": Camera(azimuth=-90.0, elevation=-60.0, distance=3.6),
}


def camera_named(name: str) -> Camera:
    """One of CAMERAS; KoboshiError with the valid names otherwise."""
    if name not in CAMERAS:
        raise unknown("camera", name, CAMERAS)
    return CAMERAS[name]


def smooth_path(points: NDArray[np.floating], sigma: float) -> NDArray[np.floating]:
    """(T, d) points averaged over time with a Gaussian of `sigma` rows; no lag, ends held."""
    reach = min(int(np.ceil(3 * sigma)), 10 * len(points))
    if reach == 0:
        return points.copy()
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(points, ((reach, reach), (0, 0)), mode="edge")
    return np.stack([np.convolve(p, kernel / kernel.sum(), mode="valid") for p in padded.T], axis=1)


class _Panel:
    """One trajectory: what to draw at a time, and how."""

    def __init__(self, model: Any, trajectory: Trajectory, size: tuple[int, int], camera: Camera, end: float) -> None:
        if trajectory.qpos.shape[1] != model.nq:
            got = trajectory.qpos.shape[1]
            raise KoboshiError(f"trajectory '{trajectory.title}': {got} numbers a row, the model has nq {model.nq}")
        self.model, self.trajectory, self.camera = model, trajectory, camera
        self.overlay = PanelOverlay(trajectory, *size, end)
        base = _base(model, trajectory.joint_names[0])
        path = trajectory.qpos[:, _position(model, base)]
        self._floor = floor_of(model) if has_floor(model) else None
        follow = smooth_path(path, _SMOOTH / trajectory.control_dt)
        if self._floor is None:
            # On a ground of its own a robot climbs, and the picture with it.
            self._height = legs_of(model, base, trajectory.qpos[0])
            follow[:, 2] -= 0.16 * self._height
        else:
            self._height = max(float(path[0, 2] - self._floor.height(path[0])), 0.1)
            follow[:, 2] = self._floor.height(follow) + 0.84 * self._height
        self._follow = follow
        self._size, self._heading = _stance(model, base, trajectory.qpos[0], self._height)
        self._joints = [(mark, model.joint(_joint(model, mark.joint)).id) for mark in trajectory.fault]
        self._original = model.geom_matid.copy(), model.geom_rgba.copy()
        self._last: tuple[int, Frame] | None = None

    def render(self, renderer: Offscreen, data: Any, time: float) -> Frame:
        """The bare scene at `time` s; once the trajectory has ended its last picture stays."""
        row = self.trajectory.index(time)
        if self._last is not None and self._last[0] == row == len(self.trajectory.qpos) - 1:
            return self._last[1]
        import mujoco

        data.qpos[:] = self.trajectory.qpos[row]
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_comPos(self.model, data)
        mujoco.mj_camlight(self.model, data)
        broken = [(mark, joint) for mark, joint in self._joints if mark.acts(time)]
        self.model.geom_matid[:], self.model.geom_rgba[:] = self._original
        for _, joint in broken:
            tint(self.model, self.model.jnt_bodyid[joint])

        def decorate(stage: Any) -> None:
            if self._floor is not None:
                add_shadow(stage, self._floor)
            for mark, joint in broken:
                # A ball that shrinks onto the joint as it breaks, so that the eye finds it.
                age = float(np.clip((time - mark.time) / 0.6, 0, 1))
                add_marker(stage, data.xanchor[joint], self._height * (0.24 - 0.14 * age), 0.45 - 0.15 * age)

        frame = renderer.draw(data, self._view(row), decorate)
        self._last = row, frame
        return frame

    def _view(self, row: int) -> Any:
        import mujoco

        view = mujoco.MjvCamera()
        steep = self.camera.elevation if self._floor is not None else min(self.camera.elevation, _OVER_STAIRS)
        view.azimuth, view.elevation = self._heading + self.camera.azimuth, steep
        view.distance = self.camera.distance * self._size
        view.lookat[:] = self._follow[row]
        return view


def _base(model: Any, joint: str) -> int:
    """The body that carries the robot of this joint: other things in the scene may move freely too."""
    return int(model.body_rootid[model.jnt_bodyid[model.joint(_joint(model, joint)).id]])


def _position(model: Any, base: int) -> slice:
    """Where `qpos` has the position of a robot's base."""
    import mujoco

    free = int(model.body_jntadr[base])
    if free < 0 or model.jnt_type[free] != mujoco.mjtJoint.mjJNT_FREE:
        raise KoboshiError(f"body '{model.body(base).name}', which carries the robot, has no free joint")
    return free_joint_columns(model, free)[0]


def _stance(model: Any, base: int, qpos: NDArray[np.floating], height: float) -> tuple[float, float]:
    """The robot's size (m) and heading (degrees) in a pose.

    The size is the base's height, or most of what the bodies span over the ground where that is more: a dog is
    longer than it is high.
    """
    import mujoco

    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    own = model.body_rootid == base
    span = float(np.linalg.norm(np.ptp(data.xpos[own][:, :2], axis=0)))
    forward = data.xmat[base].reshape(3, 3)[:, 0]
    return max(height, 0.75 * span), float(np.degrees(np.arctan2(forward[1], forward[0])))


def _joint(model: Any, name: str) -> str:
    names = [model.joint(i).name for i in range(model.njnt)]
    if name in names:
        return name
    if f"{name}_joint" in names:  # G1's model writes it so
        return f"{name}_joint"
    raise unknown("joint", name, names)


def frame_size(panels: int, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) in pixels of a whole frame of so many panels, each with a scene of `size`."""
    return panels * size[0] + (panels - 1) * _GAP, HEADER + size[1] + STRIP


def render_frames(
    model_or_spec: Any,
    panels: Sequence[Trajectory],
    times: Iterable[float],
    *,
    size: tuple[int, int] = (640, 480),
    camera: str | Camera = "three_quarter",
) -> Iterator[Frame]:
    """Yields a picture (H, W, 3) of all panels side by side at each of `times` (s), one at a time.

    `model_or_spec` is the `mujoco.MjSpec` of what is to be seen, put on a stage here, or a model made by `scene`.
    One to three panels. Raises KoboshiError where no OpenGL works, or a trajectory does not fit the model.
    """
    import mujoco
    from PIL import Image

    if not 1 <= len(panels) <= 3:
        raise KoboshiError(f"a video has 1 to 3 panels, not {len(panels)}")
    if size[0] % 2 or size[1] % 2 or min(size) < 160:
        raise KoboshiError(f"a panel's size must be even and at least 160, not {size[0]}x{size[1]}")
    model = scene(model_or_spec) if isinstance(model_or_spec, mujoco.MjSpec) else model_or_spec
    view = camera_named(camera) if isinstance(camera, str) else camera
    end = max(panel.duration for panel in panels)
    drawn = [_Panel(model, panel, size, view, end) for panel in panels]
    data = mujoco.MjData(model)
    with ExitStack() as stack:
        renderer = stack.enter_context(Offscreen(model, *size))
        renderer.option.sitegroup[:] = 0
        for time in times:
            whole = Image.new("RGB", frame_size(len(panels), size), (200, 206, 214))
            for i, panel in enumerate(drawn):
                picture = panel.overlay.draw(panel.render(renderer, data, time), time)
                whole.paste(picture, (i * (size[0] + _GAP), 0))
            yield np.asarray(whole)


def render_video(
    model_or_spec: Any,
    panels: Sequence[Trajectory],
    path: str | os.PathLike[str],
    *,
    fps: int = 25,
    size: tuple[int, int] = (640, 480),
    camera: str | Camera = "three_quarter",
    progress: Progress | None = None,
) -> int:
    """Writes an MP4 (H.264, yuv420p, faststart) of all panels side by side; returns its number of frames.

    The file is written whole or not at all, and one frame at a time is in memory. As long as the longest
    panel; shorter ones hold their last picture. `progress(done, total)` is called after every frame.
    Errors: see `render_frames`.
    """
    import imageio_ffmpeg  # type: ignore[import-untyped]

    times = _times(panels, fps)
    with atomic_path(path) as temporary:
        encoder = imageio_ffmpeg.write_frames(
            str(temporary), frame_size(len(panels), size), fps=fps, codec="libx264", quality=None,
            macro_block_size=2, pix_fmt_out="yuv420p", ffmpeg_log_level="error",
            output_params=["-preset", "veryfast", "-crf", "23", "-movflags", "+faststart", "-f", "mp4"],
        )  # fmt: skip
        encoder.send(None)
        try:
            frames = render_frames(model_or_spec, panels, times, size=size, camera=camera)
            for done, frame in enumerate(frames, start=1):
                encoder.send(np.ascontiguousarray(frame))
                if progress is not None:
                    progress(done, len(times))
        except OSError as error:
            last = str(error).strip().splitlines()[-1:]
            raise KoboshiError(f"the encoder could not write {path}: {''.join(last)}") from error
        finally:
            encoder.close()
    return len(times)


def _times(panels: Sequence[Trajectory], fps: int) -> list[float]:
    """Of the frames, s, as long as the longest panel."""
    end = max((panel.duration for panel in panels), default=0.0)
    return [i / fps for i in range(int(end * fps + 1e-6) + 1)]


def render_gif(
    model_or_spec: Any,
    panels: Sequence[Trajectory],
    path: str | os.PathLike[str],
    *,
    fps: int = 12,
    size: tuple[int, int] = (480, 360),
    camera: str | Camera = "three_quarter",
    progress: Progress | None = None,
) -> int:
    """As `render_video`, a GIF as `save_gif` makes it; returns its number of frames."""
    times = _times(panels, fps)
    frames: list[Frame] = []
    for frame in render_frames(model_or_spec, panels, times, size=size, camera=camera):
        frames.append(frame)
        if progress is not None:
            progress(len(frames), len(times))
    save_gif(path, frames, fps=fps)
    return len(times)


def save_gif(
    path: str | os.PathLike[str],
    frames: Sequence[Frame],
    *,
    fps: int = 12,
    width: int = 640,
    max_bytes: int = 3_000_000,
) -> int:
    """Writes a looping GIF of at most `max_bytes`, narrowing it as far as that needs; returns its width.

    Raises KoboshiError where even 160 pixels are too many bytes (use fewer frames).
    """
    from PIL import Image

    _some(frames)
    while width >= 160:
        tall = round(width * frames[0].shape[0] / frames[0].shape[1])
        small = [Image.fromarray(f).resize((width, tall), Image.Resampling.LANCZOS) for f in frames]
        # One palette for all, from first, middle and last: colours do not flicker and frames differ little.
        sample = Image.new("RGB", (width, 3 * tall))
        for i, frame in enumerate((small[0], small[len(small) // 2], small[-1])):
            sample.paste(frame, (0, i * tall))
        palette = sample.quantize(240)
        pages = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in small]
        buffer = io.BytesIO()
        pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=round(1000 / fps), loop=0)
        if buffer.tell() <= max_bytes:
            write_atomic(path, buffer.getvalue())
            return width
        width = int(width * min(0.9, (max_bytes / buffer.tell()) ** 0.5))
    raise KoboshiError(f"{len(frames)} frames do not fit in a GIF of {max_bytes} bytes; use fewer")


def _some(frames: Sequence[Frame]) -> None:
    if not frames:
        raise KoboshiError("no frames to save")
