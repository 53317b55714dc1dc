"""Nobody but the owner of the maps knows where a robot lies in MuJoCo's arrays.

Found are numbers where a name should stand: columns of `qpos` and its like (`qpos[:, 7:]`, `qvel[ids, :6]`), sums
that step over the free joint (`joints + 6`) and shapes that know how many feet there are (`.view(-1, 2, 7)`).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import koboshi

PACKAGE = Path(koboshi.__file__).parent
OWNERS = ("robots/maps.py",)
FIELDS = {"qpos", "qvel", "qacc", "ctrl", "sensordata", "dof_damping", "jnt_range", "qpos0", "dof_armature"}
ALLOWED: dict[str, tuple[str, ...]] = {
    "detect/metrics.py": ("joints + 1",),  # one class for each joint, and one for "healthy"
    "live/puppet.py": ("data.xmat.reshape(-1, 3, 3)",),  # a body's rotation
    "data/statistics.py": ("joints + 1",),  # from none to all of them at once
}
"""File -> its expressions that look like offsets and are none, each with its reason."""


def offsets(source: str) -> list[str]:
    """The expressions of a file that know where something lies."""
    found = []
    for node in ast.walk(ast.parse(source)):
        guilty = False
        if isinstance(node, ast.Subscript):
            guilty = (_name(node.value) in FIELDS and any(map(_literal, _parts(node)))) or any(
                _span(part) in ((3, 7), (7, None)) for part in _parts(node)
            )
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = (node.left, node.right)
            names = [_name(side) for side in sides]
            numbers = [side.value for side in sides if isinstance(side, ast.Constant)]
            guilty = any("joint" in name or "dof" in name for name in names) and numbers[:1] in ([1], [6], [7])
        elif isinstance(node, ast.Call) and _name(node.func) in ("view", "reshape", "unflatten"):
            shape = [part.value for part in node.args[1:] if isinstance(part, ast.Constant)]
            guilty = len(shape) >= 2 and all(isinstance(size, int) and size > 1 for size in shape)
        if guilty:
            found.append(ast.unparse(node))
    return found


def _name(node: ast.expr) -> str:
    """`qpos` for `self._qpos`, `env.qpos` and `qpos`; "" for what has no name."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.lstrip("_")


def _parts(node: ast.Subscript) -> list[ast.expr]:
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _span(part: ast.expr) -> tuple[object, object] | None:
    if not isinstance(part, ast.Slice):
        return None
    lower, upper = (end.value if isinstance(end, ast.Constant) else end for end in (part.lower, part.upper))
    return lower, upper


def _literal(part: ast.expr) -> bool:
    """A number, or a slice that begins or ends at one other than 0."""
    if isinstance(part, ast.Slice):
        return any(isinstance(end, ast.Constant) and end.value for end in (part.lower, part.upper))
    if isinstance(part, ast.UnaryOp):
        return False
    return isinstance(part, ast.Constant) and isinstance(part.value, int) and part.value > 0


@pytest.mark.parametrize(
    "code",
    [
        "qpos[:, 7:]", "self._qpos[rows, joints + 7]", "field[rows, joints + 6]", "env.qpos[ids, 3:7]", "qvel[:, 6:]",
        "qvel[:, 3:6]", "env.qvel[ids, :6]", "env.qpos[ids, 2]", "model.jnt_range[1:]", "sensors.view(-1, 2, 7)",
        "sensors.reshape(n, 2, 7)", "x[:, 3:7]", "trajectory.qpos[0, 3:7]", "trajectory.qpos[:, :2]", "joint + 1",
        "data.sensordata[4:7]",
    ],
)  # fmt: skip
def test_offsets_are_seen(code: str) -> None:
    assert len(offsets(code)) >= 1


@pytest.mark.parametrize(
    "code",
    [
        "qpos[:, at.qpos]", "qvel[mask]", "qpos[row]", "qpos[:last, place]", "data.sensordata[at.foot_contact]",
        "sensors.view(-1, feet, 3)", "x.view(n, -1)", "step + 1", "value[:, :2]", "joints + other", "qpos[-1]",
    ],
)  # fmt: skip
def test_what_is_no_offset_is_not(code: str) -> None:
    assert offsets(code) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_literal_offsets(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    found = [] if name in OWNERS else [code for code in offsets(path.read_text()) if code not in ALLOWED.get(name, ())]
    assert not found, f"{name} knows where a robot lies in MuJoCo's arrays; robots.JointMap says it: {found}"


def test_what_is_allowed_is_there() -> None:
    for name, codes in ALLOWED.items():
        assert set(codes) <= set(offsets((PACKAGE / name).read_text())), f"{name} has left the list of exceptions"
