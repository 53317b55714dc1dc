"""The robot on the page: its meshes, sent once, and its bodies' places, sent with every picture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from koboshi.view.scene import floor_of, has_floor, legs_of
from koboshi.view.shapes import shapes

if TYPE_CHECKING:
    import viser

Colour = tuple[int, int, int]
BROKEN = (219, 51, 13)
CHOSEN = (70, 140, 200)
_GRID = 1.0
"""m from one of the ground's strong lines to the next."""
_FAR = 12.0
"""m from the middle: a robot that is not followed, and has walked there or begun anew there, would be out of sight."""
_FALLS, _FOLLOWS = 0.5, 0.05
"""m that a base is moved at once (a robot that was put elsewhere), and the share that it is in every picture."""
_NOTICED = 1e-5
"""m, and parts of a quaternion: what moved less is not sent."""
_PALE = 0.35
"""Share of white that a dark body's colour gets, so that its shape shows on a page with little light."""
_SHADE = 0.8
"""Of the ground's colours: lit as the page is, steps of light ones would not be seen."""


class Puppet:
    """Draws a compiled model made by `view.scene.scene` in a viser server's scene.

    The page's camera stays where its viewer puts it; to follow the robot the world moves under it instead, so that
    any number of viewers look from where each likes. `pick(joint)` is called when somebody clicks on a body.
    """

    def __init__(self, server: viser.ViserServer, model: Any, joints: Sequence[int], pick: Callable[[int], None]):
        """joints: the robot's joints in the model, in the order of its joint names."""
        self._server, self._model, self._data = server, model, mujoco.MjData(model)
        self._joints = list(joints)
        self._floor = floor_of(model)
        self._base = int(model.body_rootid[model.jnt_bodyid[self._joints[0]]])
        self._base_columns = slice(*(int(model.jnt_qposadr[model.body_jntadr[self._base]]) + i for i in (0, 2)))
        self.follows = True
        self._middle, self._legs = np.zeros(3), legs_of(model, self._base, model.qpos0)
        self._frames = [server.scene.add_frame(_path(model, body), show_axes=False) for body in range(model.nbody)]
        self._places = np.full((model.nbody, 7), np.inf)
        self._meshes: list[tuple[int, Any, Colour]] = []
        self._painted: dict[int, Colour] = {}
        self._add_meshes(pick)
        self._add_ground()
        self._label = server.scene.add_label("/name", "", anchor="center-left", visible=False)

    def _add_meshes(self, pick: Callable[[int], None]) -> None:
        for i, shape in enumerate(shapes(self._model)):
            ground = shape.body == 0
            colour = _on_page(shape.rgba, _SHADE if ground else 1.0)
            mesh = self._server.scene.add_mesh_simple(
                f"{_path(self._model, shape.body)}/shape{i}", shape.vertices, shape.faces, color=colour,
                opacity=None if shape.rgba[3] == 1 else shape.rgba[3], flat_shading=ground,
            )  # fmt: skip
            joint = self._joint_of(shape.body)
            if joint is not None:
                mesh.on_click(lambda _, joint=joint: pick(joint))  # type: ignore[misc]
            self._meshes.append((shape.body, mesh, colour))

    def _joint_of(self, body: int) -> int | None:
        """Which of the robot's joints moves the body, itself or through the bodies that carry it."""
        while body > 0:
            own = [j for j, joint in enumerate(self._joints) if self._model.jnt_bodyid[joint] == body]
            if own:
                return own[-1]
            body = int(self._model.body_parentid[body])
        return None

    def _add_ground(self) -> None:
        """The floor; a ground of boxes and fields is among the meshes, and lines would cross it."""
        self._grid = None
        if not has_floor(self._model):
            return
        rotation = np.empty(4)
        mujoco.mju_quatZ2Vec(rotation, np.asarray(self._floor.normal, float))
        self._grid = self._server.scene.add_grid(
            "/ground", 40.0, 40.0, cell_size=_GRID / 2, section_size=_GRID, wxyz=rotation, fade_distance=24.0,
            cell_color=(214, 219, 226), section_color=(176, 184, 196), plane_color=(238, 241, 245), plane_opacity=1.0,
            shadow_opacity=0.3,
        )  # fmt: skip

    def look_from(self) -> None:
        """Where the cameras of new viewers stand: before the robot, to its left, a little above it."""
        size = 1.15 * float(self._data.xpos[self._base, 2] - self._middle[2]) + 0.25
        camera = self._server.initial_camera
        camera.position = (1.55 * size, 1.35 * size, 1.2 * size)
        camera.look_at = (0.0, 0.0, 0.72 * (size - 0.25))
        camera.fov = 0.85

    def pose(self, qpos: NDArray[np.float64], broken: Collection[int], chosen: int) -> None:
        """Shows qpos (nq,); broken, chosen: indices of the robot's joints."""
        data = self._data
        data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, data)
        place = qpos[self._base_columns]
        if self.follows or np.abs(place - self._middle[:2]).max() > _FAR:
            self._middle = np.array([*place, self._ground_under(qpos)])
        with self._server.atomic():
            self._place_bodies()
            self._place_ground()
            self._paint(broken, chosen)
            self._name(chosen)

    def _ground_under(self, qpos: NDArray[np.float64]) -> float:
        """m; on a ground of its own about a leg's length under the base, and slowly, so that steps do not shake."""
        if self._grid is not None:
            return float(self._floor.height(qpos[self._base_columns]))
        below = float(self._data.xpos[self._base, 2]) - self._legs
        old = float(self._middle[2])
        return below if abs(below - old) > _FALLS else old + _FOLLOWS * (below - old)

    def _place_bodies(self) -> None:
        """Each in its parent's frame, where a joint turns it and little else moves; only what changed is sent."""
        data, parent = self._data, self._model.body_parentid
        rotation = data.xmat.reshape(-1, 3, 3)[parent]
        position = np.einsum("bji,bj->bi", rotation, data.xpos - data.xpos[parent])
        position[0] = -self._middle
        places = np.hstack((position, _turned_back(data.xquat[parent], data.xquat)))
        moved = np.abs(places - self._places) > _NOTICED
        for body in np.flatnonzero(moved[:, :3].any(1)).tolist():
            self._frames[body].position = places[body, :3]
            self._places[body, :3] = places[body, :3]
        for body in np.flatnonzero(moved[:, 3:].any(1)).tolist():
            self._frames[body].wxyz = places[body, 3:]
            self._places[body, 3:] = places[body, 3:]

    def _place_ground(self) -> None:
        """Under the robot, its lines where they would be if there were ground everywhere."""
        if self._grid is None:
            return
        near = np.round(self._middle[:2] / _GRID) * _GRID
        self._grid.position = np.array([*near, float(self._floor.height(near))]) - self._middle

    def _paint(self, broken: Collection[int], chosen: int) -> None:
        colours = {int(self._model.jnt_bodyid[self._joints[chosen]]): CHOSEN}
        colours |= {int(self._model.jnt_bodyid[self._joints[j]]): BROKEN for j in broken}
        if colours == self._painted:
            return
        self._painted = colours
        for body, mesh, own in self._meshes:
            mesh.color = colours.get(body, own)

    def _name(self, chosen: int) -> None:
        joint = self._joints[chosen]
        self._label.visible = True
        self._label.position = self._data.xanchor[joint] - self._middle
        self._label.text = self._model.joint(joint).name


def _path(model: Any, body: int) -> str:
    """A body's frame on the page, under its parent's."""
    return f"{_path(model, int(model.body_parentid[body]))}/{body}" if body else "/world"


def _turned_back(parent: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 4) quaternions of the world, (w, x, y, z): own seen from parent, parent⁻¹ · own."""
    w, x = parent[:, :1], -parent[:, 1:]
    v, y = own[:, :1], own[:, 1:]
    return np.hstack((w * v - (x * y).sum(1, keepdims=True), w * y + v * x + np.cross(x, y)))


def _on_page(rgba: tuple[float, float, float, float], shade: float) -> Colour:
    """0..255, dark colours made paler, all of them times `shade`."""
    dark = _PALE * max(0.0, 0.5 - max(rgba[:3]))
    red, green, blue = (round(255 * shade * (dark + (1 - dark) * value)) for value in rgba[:3])
    return red, green, blue
