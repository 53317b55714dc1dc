"""A stage for a robot: floor, light, sky, lighter meshes, and a shadow that costs next to nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CELL = 0.008
"""Metres: mesh vertices nearer than this are merged; under two pixels at the distance of our camera."""
_LIGHT = (-0.5, -0.12, -1.0)
"""Direction in which the light travels, world frame."""
_HORIZON = (0.86, 0.90, 0.94)
_SHADOW = (0.50, 0.54, 0.60)
_FAULT = (0.86, 0.20, 0.05, 1.0)
_FLOOR = "view_floor"
_NEAR, _FAR = 0.03, 300.0
"""What a camera sees begins and ends so far from it, m."""


class Floor(NamedTuple):
    """The plane that a scene stands on."""

    point: NDArray[np.floating]
    """(3,) m, world."""
    normal: NDArray[np.floating]
    """(3,) unit."""

    def height(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """(…, ≥ 2) world x, y -> (…) m."""
        rise: NDArray[np.floating] = (points[..., :2] - self.point[:2]) @ self.normal[:2] / self.normal[2]
        return self.point[2] - rise


def has_floor(model: Any) -> bool:
    """Whether a model made by `scene` stands on our floor; otherwise it brought a ground of its own."""
    import mujoco

    return int(mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, _FLOOR)) >= 0


def floor_of(model: Any) -> Floor:
    """Of a model made by `scene`; z = 0 where another ground lies instead."""
    import mujoco

    if not has_floor(model):
        return Floor(np.zeros(3), np.array([0.0, 0.0, 1.0]))
    found = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, _FLOOR)
    normal = np.empty(3)
    mujoco.mju_rotVecQuat(normal, np.array([0.0, 0.0, 1.0]), model.geom_quat[found])
    return Floor(model.geom_pos[found].copy(), normal)


def legs_of(model: Any, base: int, qpos: NDArray[np.floating]) -> float:
    """How far a robot's base is above the lowest of its bodies in a pose, m, at least 0.1."""
    import mujoco

    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    return max(float(data.xpos[base, 2] - data.xpos[model.body_rootid == base, 2].min()), 0.1)


def scene(spec: Any, cell: float = CELL) -> Any:
    """The `mujoco.MjModel` to draw: the robot of this `mujoco.MjSpec` on a stage; the spec is left as it was.

    Joints and their order are those of the spec, so its `qpos` fits. Meshes are merged at `cell` metres
    (H1: from 286 to 38 thousand faces); 0 leaves them alone. The world's plane is drawn as our floor, where it
    lies (z = 0 where there is none); a world that brings a height field keeps that instead.
    """
    stage = spec.copy()
    if cell > 0:
        _lighten_meshes(stage, spec.copy().compile(), cell)
    _dress(stage)
    model = stage.compile()
    # MuJoCo counts in the model's extent, and that of a large ground would cut off all that is near.
    model.vis.map.znear, model.vis.map.zfar = _NEAR / model.stat.extent, _FAR / model.stat.extent
    # What has no visual shape, robot or other thing, is drawn by its collision shapes.
    thing = model.body_rootid[model.geom_bodyid]
    for root in set(thing[thing > 0].tolist()):
        if not np.isin(model.geom_group[thing == root], (0, 1, 2)).any():
            model.geom_group[thing == root] = 2
    return model


def _dress(spec: Any) -> None:
    import mujoco

    for light in list(spec.lights):
        spec.delete(light)
    ground, place = list(spec.worldbody.geoms), {}
    # A ground without a plane is all there is to stand on: a floor of ours would fill its pits.
    types = [geom.type for geom in ground]
    terrain = mujoco.mjtGeom.mjGEOM_HFIELD in types or (bool(types) and mujoco.mjtGeom.mjGEOM_PLANE not in types)
    for geom in ground:
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
            geom.group = 5  # ours is drawn in its place
            place = {"pos": list(geom.pos), "quat": list(geom.quat)}
    for texture in list(spec.textures):
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(texture)
    for material in spec.materials:
        if max(material.rgba[:3]) < 0.16:  # plain black swallows the shape of what it covers
            material.rgba[:3] = (0.27, 0.28, 0.31)
            material.specular, material.shininess = 0.5, 0.35
    sky = spec.add_texture(name="view_sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=256, height=256)
    sky.builtin, sky.rgb1, sky.rgb2 = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, (0.45, 0.62, 0.82), _HORIZON
    if terrain:
        _paint(spec, ground)
    else:
        _add_floor(spec, place)
    spec.worldbody.add_light(
        pos=(0, 0, 4), dir=_LIGHT, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        diffuse=(0.55, 0.55, 0.55), specular=(0.35, 0.35, 0.35), castshadow=False,
    )  # fmt: skip
    visual = spec.visual
    visual.headlight.ambient, visual.headlight.diffuse = (0.42, 0.42, 0.42), (0.32, 0.32, 0.32)
    visual.headlight.specular = (0.1, 0.1, 0.1)
    visual.quality.shadowsize, visual.quality.offsamples = 1, 4
    visual.rgba.haze = (*_HORIZON, 1)


def _paint(spec: Any, ground: list[Any]) -> None:
    """The ground in light colours, the higher the warmer; a height field has one."""
    import mujoco

    tops = [geom.pos[2] + geom.size[2] for geom in ground if geom.type == mujoco.mjtGeom.mjGEOM_BOX]
    reach = max([0.1, *map(abs, tops)])
    for geom in ground:
        warm = 0.0
        if geom.type == mujoco.mjtGeom.mjGEOM_BOX:
            warm = (geom.pos[2] + geom.size[2]) / reach
        geom.rgba = [0.72 + 0.14 * warm, 0.73 + 0.02 * warm, 0.75 - 0.14 * warm, 1.0]
        geom.group = 0


def _add_floor(spec: Any, place: dict[str, Any]) -> None:
    import mujoco

    flat = mujoco.mjtTexture.mjTEXTURE_2D
    checker = spec.add_texture(name="view_checker", type=flat, width=256, height=256)
    checker.builtin, checker.mark = mujoco.mjtBuiltin.mjBUILTIN_CHECKER, mujoco.mjtMark.mjMARK_EDGE
    checker.rgb1, checker.rgb2, checker.markrgb = (0.80, 0.83, 0.87), (0.69, 0.73, 0.79), (0.93, 0.95, 0.97)
    floor = spec.add_material(name="view_floor", texrepeat=(1, 1), texuniform=True, reflectance=0, specular=0)
    floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "view_checker"
    spec.worldbody.add_geom(
        name=_FLOOR, type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 0.05), material="view_floor",
        contype=0, conaffinity=0, **place,
    )  # fmt: skip


def merge_vertices(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], cell: float
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Clusters (V, 3) vertices on a grid of `cell` metres; drops faces of (F, 3) that collapse or repeat."""
    _, cluster, count = np.unique(
        np.floor(vertices / cell).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    cluster = cluster.reshape(-1)
    merged = np.stack([np.bincount(cluster, vertices[:, k]) / count for k in range(3)], axis=1)
    kept = cluster[faces]
    kept = kept[(kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 2] != kept[:, 0])]
    _, first = np.unique(np.sort(kept, axis=1), axis=0, return_index=True)
    return merged, kept[np.sort(first)]


def _lighten_meshes(spec: Any, model: Any, cell: float) -> None:
    """Puts a merged copy in the place of every mesh; `model` is the compiled spec."""
    import mujoco

    rename: dict[str, str] = {}
    textured = _textured_meshes(model)
    for i in range(model.nmesh):
        if model.mesh_facenum[i] < 3000 or i in textured:  # cheap, or would lose its texture
            continue
        start, faces_at = model.mesh_vertadr[i], model.mesh_faceadr[i]
        # The compiler centres meshes; undo it so that the copy lies where the original lay.
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, model.mesh_quat[i])
        vertices = model.mesh_vert[start : start + model.mesh_vertnum[i]].astype(float)
        vertices = vertices @ rotation.reshape(3, 3).T + model.mesh_pos[i]
        faces = model.mesh_face[faces_at : faces_at + model.mesh_facenum[i]]
        vertices, faces = merge_vertices(vertices, faces, cell)
        name = model.mesh(i).name
        rename[name] = f"view_{name}"
        spec.add_mesh(
            name=rename[name], uservert=vertices.ravel(), userface=faces.ravel().astype(np.int32),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )  # fmt: skip
    for geom in spec.geoms:
        geom.meshname = rename.get(geom.meshname, geom.meshname)
    for mesh in list(spec.meshes):
        if mesh.name in rename or _stem(mesh.file) in rename:
            spec.delete(mesh)


def _textured_meshes(model: Any) -> set[int]:
    """The meshes that are drawn with a picture on them; coordinates for one alone show nothing."""
    import mujoco

    mesh = (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_matid >= 0)
    painted = (model.mat_texid[model.geom_matid] >= 0).any(1) if model.nmat else False
    return set(model.geom_dataid[mesh & painted].tolist())


def _stem(file: str) -> str:
    return file.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]


def tint(model: Any, body: int) -> None:
    """Paints what hangs on `body` in the colour of a fault, in the model."""
    geoms = model.geom_bodyid == body
    model.geom_matid[geoms] = -1
    model.geom_rgba[geoms] = _FAULT


def add_shadow(stage: Any, floor: Floor) -> None:
    """Adds a shadow on the floor to an `MjvScene`: every body once more, flattened along the light.

    It costs a fifth of MuJoCo's shadow maps in software.
    """
    import mujoco

    light, normal = np.array(_LIGHT), floor.normal
    # Not quite flat, so that the matrix keeps its rank.
    flatten = np.eye(3) - np.outer(light, normal) / (light @ normal) + 1e-4 * np.outer(normal, normal)
    for i in range(stage.ngeom):
        source = stage.geoms[i]
        if source.category != mujoco.mjtCatBit.mjCAT_DYNAMIC or stage.ngeom >= stage.maxgeom:
            continue
        geom = stage.geoms[stage.ngeom]
        # Colour comes from emission alone: a flattened surface has no normals worth lighting.
        rgba = np.array([*(0.01 * np.array(_SHADOW)), 1], np.float32)
        position = floor.point + flatten @ (source.pos - floor.point) + 0.003 * normal
        mujoco.mjv_initGeom(geom, source.type, source.size, position, (flatten @ source.mat).ravel(), rgba)
        geom.dataid, geom.emission, geom.specular = source.dataid, 100.0, 0.0
        geom.category = mujoco.mjtCatBit.mjCAT_DECOR
        stage.ngeom += 1


def add_marker(stage: Any, position: NDArray[np.floating], radius: float, alpha: float) -> None:
    """Adds a see-through ball in the colour of a fault at `position` (m, world)."""
    import mujoco

    if stage.ngeom < stage.maxgeom:
        rgba = np.array([*_FAULT[:3], alpha], np.float32)
        geom = stage.geoms[stage.ngeom]
        mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, radius), position, np.eye(3).ravel(), rgba)
        geom.emission = 0.5
        stage.ngeom += 1
