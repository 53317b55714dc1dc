"""Left and right: which joint is whose mirror image, by its name, and how its angle looks there, by its axis."""

from __future__ import annotations

import re
from collections.abc import Sequence

import mujoco
import numpy as np

from koboshi.errors import KoboshiError
from koboshi.robots.actuators import ActuatorLaw

_PAIRS = (
    ("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"), ("l", "r"), ("L", "R"), ("fl", "fr"), ("FL", "FR"),
    ("rl", "rr"), ("RL", "RR"), ("hl", "hr"), ("HL", "HR"), ("lf", "rf"), ("LF", "RF"), ("lh", "rh"), ("LH", "RH"),
)  # fmt: skip
_OTHER = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
_WORDS = re.compile("(left|right|Left|Right|LEFT|RIGHT)")
_FLIP = np.array([1.0, -1.0, 1.0])
_SAME_PLACE = 0.01
"""How far a joint may be from its partner's mirror image, m: published models are symmetrical to millimetres."""


def other_side(name: str) -> str:
    """`left_knee` -> `right_knee`, `FL_hip_joint` -> `FR_hip_joint`, `knee_L` -> `knee_R`, `torso` -> `torso`."""
    tokens = [_OTHER.get(token, token) for token in name.split("_")]
    swapped = "_".join(tokens)
    return swapped if swapped != name else _WORDS.sub(lambda found: _OTHER[found[0]], name)


def mirror_ids(names: Sequence[str], kind: str) -> np.ndarray:
    """(n,) index of each name's other side; KoboshiError where a side has no partner."""
    for name in names:
        if other_side(name) not in names:
            raise KoboshiError(f"{kind} '{name}' has no partner '{other_side(name)}'; {kind}s: {', '.join(names)}")
    return np.array([list(names).index(other_side(name)) for name in names])


def mirror_signs(model: mujoco.MjModel, names: Sequence[str], law: ActuatorLaw, base_body: str) -> np.ndarray:
    """(J,) +1 where an angle keeps its sign in the mirror (y -> −y of the base), −1 where it flips.

    In the mirror a rotation about axis (x, y, z) becomes one about (−x, y, −z), a shift along it one along
    (x, −y, z). KoboshiError where the partner does not sit at the mirrored place, turns about another axis, or
    has another range or another actuator.
    """
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    ids, joints = mirror_ids(names, "joint"), [model.joint(name).id for name in names]
    base = data.body(base_body)
    frame = base.xmat.reshape(3, 3)
    axis = data.xaxis[joints] @ frame
    place = (data.xanchor[joints] - base.xpos) @ frame
    slides = model.jnt_type[joints] == mujoco.mjtJoint.mjJNT_SLIDE
    image = axis * _FLIP * np.where(slides, 1.0, -1.0)[:, None]
    turn = (image * axis[ids]).sum(1)
    shift = np.linalg.norm(place * _FLIP - place[ids], axis=1)
    for j, name in enumerate(names):
        if abs(turn[j]) < 0.99 or shift[j] > _SAME_PLACE:
            raise KoboshiError(
                f"joint '{name}' and '{names[ids[j]]}' are no mirror images: their axes agree by {turn[j]:.2f}, "
                f"their places differ by {1000 * shift[j]:.0f} mm"
            )
    signs = np.sign(turn)
    _check_alike(names, ids, signs, model.jnt_range[joints], law)
    return signs


def _check_alike(
    names: Sequence[str], ids: np.ndarray, signs: np.ndarray, ranges: np.ndarray, law: ActuatorLaw
) -> None:
    image = np.sort(ranges * signs[:, None], axis=1)
    for j, name in enumerate(names):
        other = names[ids[j]]
        if not np.allclose(image[j], ranges[ids[j]], atol=1e-3):
            raise KoboshiError(
                f"joint '{name}' has the range {ranges[j].tolist()}, its partner '{other}' {ranges[ids[j]].tolist()}"
            )
        if any(column[j] != column[ids[j]] for column in law):
            raise KoboshiError(f"joint '{name}' and its partner '{other}' have different actuators")
