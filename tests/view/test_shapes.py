"""A model's looks as triangles: in place, in one piece a body and colour, and closed."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from koboshi import robots
from koboshi.robots import visual_spec
from koboshi.view.shapes import Shape, shapes

pytest.importorskip("trimesh", reason="comes with viser, the extra view")

XML = """
<mujoco><asset><material name="red" rgba="1 0 0 1"/>
  <mesh name="tetra" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/>
  <hfield name="hill" nrow="3" ncol="4" size="2 1 0.5 0.1" elevation="0 0 0 0  0 1 0 0  0 0 0 0"/></asset>
<worldbody>
  <geom type="plane" size="1 1 1"/><geom type="hfield" hfield="hill" pos="0 0 1"/>
  <body name="a"><geom type="box" size=".1 .2 .3" pos="1 0 0" material="red"/>
    <geom type="sphere" size=".2" material="red"/><geom type="box" size=".1 .1 .1" group="3"/>
    <geom type="box" size=".1 .1 .1" rgba="1 1 1 0"/>
    <body name="b"><geom type="capsule" fromto="0 0 0 0 0 -.4" size=".05" rgba="0 0 1 .5"/></body>
    <body name="c"><geom type="cylinder" size=".1 .3"/></body>
    <body name="d"><geom type="ellipsoid" size=".1 .2 .3" euler="0 0 90"/></body>
    <body name="e"><geom type="mesh" mesh="tetra" material="red" rgba="0 1 0 1" pos="0 0 2"/></body>
  </body></worldbody></mujoco>"""


@pytest.fixture(scope="module")
def found() -> dict[int, Shape]:
    model = mujoco.MjModel.from_xml_string(XML)
    return {shape.body: shape for shape in shapes(model)}


def bounds(shape: Shape) -> tuple[list[float], list[float]]:
    return shape.vertices.min(0).tolist(), shape.vertices.max(0).tolist()


def volume(shape: Shape) -> float:
    """Of a closed surface whose faces look outwards, m³."""
    a, b, c = (shape.vertices[shape.faces[:, k]].astype(float) for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def test_one_piece_a_body_and_colour(found: dict[int, Shape]) -> None:
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert [found[body].rgba for body in (1, 2, 3, 5)] == [
        (1, 0, 0, 1), (0, 0, 1, 0.5), (0.5, 0.5, 0.5, 1), (0, 1, 0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "low", "high", "size"),
    [
        (1, (-0.2, -0.2, -0.3), (1.1, 0.2, 0.3), 8 * 0.1 * 0.2 * 0.3 + 4 / 3 * np.pi * 0.2**3),
        (2, (-0.05, -0.05, -0.45), (0.05, 0.05, 0.05), np.pi * 0.05**2 * 0.4 + 4 / 3 * np.pi * 0.05**3),
        (3, (-0.1, -0.1, -0.3), (0.1, 0.1, 0.3), np.pi * 0.1**2 * 0.6),
        (4, (-0.2, -0.1, -0.3), (0.2, 0.1, 0.3), 4 / 3 * np.pi * 0.1 * 0.2 * 0.3),
        (5, (0.0, 0.0, 2.0), (1.0, 1.0, 3.0), 1 / 6),
    ],
)
def test_shapes_lie_where_the_model_has_them(
    found: dict[int, Shape], body: int, low: tuple[float, ...], high: tuple[float, ...], size: float
) -> None:
    lowest, highest = bounds(found[body])
    assert lowest == pytest.approx(low, abs=2e-3) and highest == pytest.approx(high, abs=2e-3)
    assert volume(found[body]) == pytest.approx(size, rel=0.06)


def test_a_height_field_looks_up(found: dict[int, Shape]) -> None:
    field = found[0]
    assert bounds(field) == ([-2, -1, 1], [2, 1, 1.5]) and len(field.faces) == 2 * 2 * 3
    top = field.vertices[field.vertices[:, 2].argmax()]
    assert top[:2].tolist() == pytest.approx([-2 / 3, 0.0])
    a, b, c = (field.vertices[field.faces[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


@pytest.mark.parametrize("name", ["unitree_h1", "unitree_g1"])
def test_a_robot_is_drawn_by_its_meshes(name: str) -> None:
    robot = robots.find(name)
    model = visual_spec(robot).compile()
    drawn = shapes(model)
    moved = {int(model.jnt_bodyid[model.joint(j).id]) for j in robot.joint_names}
    assert moved <= {shape.body for shape in drawn}
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    tops = [(s.vertices @ data.xmat[s.body].reshape(3, 3).T + data.xpos[s.body])[:, 2].max() for s in drawn]
    assert 1.2 < max(tops) < 2.0
