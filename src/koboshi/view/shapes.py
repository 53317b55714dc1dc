"""What a model looks like as plain triangles, for whatever draws triangles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_VISIBLE = (0, 1, 2)
"""Geom groups that MuJoCo's own viewer shows."""
_PLAIN = (0.5, 0.5, 0.5, 1.0)
"""MuJoCo's colour for a geom that names none."""


class Shape(NamedTuple):
    """All that hangs on one body in one colour."""

    body: int
    vertices: NDArray[np.float32]
    """(V, 3) m, in the body's frame."""
    faces: NDArray[np.int64]
    """(F, 3) rows of `vertices`, counter-clockwise seen from outside."""
    rgba: tuple[float, float, float, float]
    """0..1."""


def shapes(model: Any) -> list[Shape]:
    """Of a compiled `mujoco.MjModel`, in the order of its bodies; planes are left out, for they have no end."""
    import mujoco

    found: dict[tuple[int, tuple[float, ...]], list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    for geom in range(model.ngeom):
        rgba = _colour(model, geom)
        plane = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE
        if plane or model.geom_group[geom] not in _VISIBLE or rgba[3] == 0:
            continue
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
        vertices, faces = _triangles(model, geom)
        placed = vertices @ rotation.reshape(3, 3).T + model.geom_pos[geom]
        found.setdefault((int(model.geom_bodyid[geom]), rgba), []).append((placed, faces))
    return [Shape(body, *_joined(parts), rgba) for (body, rgba), parts in found.items()]  # type: ignore[arg-type]


def _colour(model: Any, geom: int) -> tuple[float, ...]:
    """A geom's own colour stands, where it names one, before its material's; so does MuJoCo."""
    own = tuple(round(float(value), 4) for value in model.geom_rgba[geom])
    material = int(model.geom_matid[geom])
    if material < 0 or own != _PLAIN:
        return own
    return tuple(round(float(value), 4) for value in model.mat_rgba[material])


def _triangles(model: Any, geom: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Vertices and faces in the geom's frame."""
    import mujoco

    kind, size = mujoco.mjtGeom(int(model.geom_type[geom])), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        return _mesh(model, int(model.geom_dataid[geom]))
    if kind == mujoco.mjtGeom.mjGEOM_HFIELD:
        return _field(model, int(model.geom_dataid[geom]))
    import trimesh

    create = trimesh.creation
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        made = create.icosphere(subdivisions=3, radius=size[0])
    elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        made = create.capsule(height=2 * size[1], radius=size[0], count=(16, 16))
        made.apply_translation((0, 0, -made.bounds.mean(0)[2]))
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        made = create.cylinder(radius=size[0], height=2 * size[1])
    elif kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        made = create.icosphere(subdivisions=3, radius=1.0)
        made.apply_scale(size)
    else:
        made = create.box(extents=2 * size)
    return np.asarray(made.vertices), np.asarray(made.faces)


def _mesh(model: Any, i: int) -> tuple[NDArray[Any], NDArray[Any]]:
    first, count = int(model.mesh_vertadr[i]), int(model.mesh_vertnum[i])
    begin, faces = int(model.mesh_faceadr[i]), int(model.mesh_facenum[i])
    return model.mesh_vert[first : first + count], model.mesh_face[begin : begin + faces]


def _field(model: Any, i: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A height field's upper side."""
    rows, columns, first = int(model.hfield_nrow[i]), int(model.hfield_ncol[i]), int(model.hfield_adr[i])
    half_x, half_y, top, _ = model.hfield_size[i]
    x, y = np.meshgrid(np.linspace(-half_x, half_x, columns), np.linspace(-half_y, half_y, rows))
    z = top * model.hfield_data[first : first + rows * columns].reshape(rows, columns)
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, 1:].ravel(), at[1:, :-1].ravel()
    return np.column_stack((x.ravel(), y.ravel(), z.ravel())), np.vstack(
        (np.column_stack((a, b, c)), np.column_stack((a, c, d)))
    )


def _joined(parts: list[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    before = np.cumsum([0, *(len(vertices) for vertices, _ in parts[:-1])])
    faces = [each.astype(np.int64) + start for (_, each), start in zip(parts, before, strict=True)]
    return np.vstack([vertices for vertices, _ in parts]).astype(np.float32), np.vstack(faces)
