"""Left and right: which joint is whose mirror image, by its name, and how its angle looks there, by its axis."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import mujoco
import numpy as np

from koboshi.errors import KoboshiError
from koboshi.robots.actuators import ActuatorLaw

_WORDS = {"left": "right", "right": "left", "l": "r", "r": "l"}
_WORD = re.compile("(?<![A-Za-z])(?:left|right)|Left|Right|LEFT|RIGHT")
_TOKEN = re.compile(r"(?<![A-Za-z])[A-Za-z]+(?![A-Za-z])")
_PLACES = "fhrbm"
"""Letters that stand beside L or R in the name of a leg: front, hind or rear, back, middle."""
_FLIP = np.array([1.0, -1.0, 1.0])
_SAME_PLACE = 0.01
"""How far a joint may be from its partner's mirror image, m: published models are symmetrical to millimetres."""


def other_side(name: str, names: Collection[str] = ()) -> str:
    """`left_knee` -> `right_knee`, `FL_hip` -> `FR_hip`, `LF_HAA` -> `RF_HAA`, `knee.L` -> `knee.R`, `torso` itself.

    `names`: all there are; they decide where a name can be read in two ways (RR is rear right, or right rear).
    """
    guesses = [*_other_tokens(name), _WORD.sub(lambda found: _like(_WORDS[found[0].lower()], found[0]), name)]
    guesses = [guess for guess in guesses if guess != name]
    return next((guess for guess in guesses if guess in names), guesses[0] if guesses else name)


def _other_tokens(name: str) -> Iterator[str]:
    """The name with one of its parts (between digits and signs) on the other side, the likelier first."""
    for token in _TOKEN.finditer(name):
        for other in _other_token(token[0]):
            yield name[: token.start()] + other + name[token.end() :]


def _other_token(token: str) -> list[str]:
    low = token.lower()
    if low in _WORDS:
        return [_like(_WORDS[low], token)]
    if len(low) != 2:
        return []
    first, second = low[0], low[1]
    swapped = [first + _WORDS[second]] if first in _PLACES and second in _WORDS else []
    swapped += [_WORDS[first] + second] if second in _PLACES and first in _WORDS else []
    return [_like(other, token) for other in swapped]


def _like(word: str, model: str) -> str:
    """The word, its letters as large as the model's."""
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


def mirror_ids(names: Sequence[str], kind: str, partners: Mapping[str, str] | None = None) -> np.ndarray:
    """(n,) index of each name's other side; `partners` says which it is where the names do not.

    KoboshiError where a side has no partner, or one that has another.
    """
    both = {**(partners or {}), **{b: a for a, b in (partners or {}).items()}}
    found = [both.get(name, other_side(name, names)) for name in names]
    for name, other in zip(names, found, strict=True):
        if other not in names:
            raise KoboshiError(f"{kind} '{name}' has no partner '{other}'; {kind}s: {', '.join(names)}")
    ids = np.array([list(names).index(other) for other in found], dtype=int)
    for i, other in enumerate(ids):
        if ids[other] != i:
            raise KoboshiError(f"{kind} '{names[i]}' has the partner '{found[i]}', and that has '{found[other]}'")
    return ids


def mirror_signs(
    model: mujoco.MjModel, names: Sequence[str], ids: np.ndarray, law: ActuatorLaw, base_body: str
) -> np.ndarray:
    """(J,) +1 where an angle keeps its sign in the mirror (y -> −y of the base), −1 where it flips.

    In the mirror a rotation about axis (x, y, z) becomes one about (−x, y, −z), a shift along it one along
    (x, −y, z). KoboshiError where the partner does not sit at the mirrored place, turns about another axis, or
    has another range, actuator, armature, damping or friction.
    """
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    joints = [model.joint(name).id for name in names]
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
    dofs = model.jnt_dofadr[joints]
    for what in ("armature", "damping", "frictionloss"):
        value = getattr(model, f"dof_{what}")[dofs]
        for name, mine, other, theirs in zip(names, value, np.take(names, ids), value[ids], strict=True):
            if not np.isclose(mine, theirs):
                raise KoboshiError(f"joint '{name}' has the {what} {mine:.4g}, its partner '{other}' {theirs:.4g}")
    return signs


def _check_alike(
    names: Sequence[str], ids: np.ndarray, signs: np.ndarray, ranges: np.ndarray, law: ActuatorLaw
) -> None:
    image = np.sort(ranges * signs[:, None], axis=1)
    for j, name in enumerate(names):
        other = names[ids[j]]
        if not np.allclose(image[j], ranges[ids[j]], atol=1e-3):
            raise KoboshiError(
                f"joint '{name}' has the range {ranges[j].round(3).tolist()}, "
                f"its partner '{other}' {ranges[ids[j]].round(3).tolist()}"
            )
        if any(column[j] != column[ids[j]] for column in law):
            raise KoboshiError(f"joint '{name}' and its partner '{other}' have different actuators")
