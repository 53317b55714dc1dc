"""Which specialist serves which joint, and who covers a set of joints that have failed together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from koboshi.errors import KoboshiError, unknown
from koboshi.faults.kinds import check_kind
from koboshi.robots import Robot

Sharing = Literal["joint", "mirrored_pair", "limb", "one"]
SHARINGS: tuple[Sharing, ...] = get_args(Sharing)
Cover = Literal["strongest", "healthy"]
COVER_RULES: dict[str, str] = {
    "strongest": "whoever is in charge stays while a joint that they serve is broken; of several at once the member of "
    "the most probable fault acts",
    "healthy": "the healthy policy acts",
}
"""Who acts where no member serves all joints that are broken."""
COVERS: tuple[str, ...] = tuple(COVER_RULES)


@dataclass(frozen=True)
class Member:
    """One specialist: its name, the joints it serves, and those among them that it sees through the mirror."""

    name: str
    joints: tuple[str, ...]
    mirrored: tuple[str, ...] = ()
    kinds: tuple[str, ...] | None = None
    """The kinds of fault it serves; None: all."""


@dataclass(frozen=True)
class Assignment:
    """All specialists of a bank. Joints that no member serves are left to the healthy policy."""

    members: tuple[Member, ...]
    cover: Cover = "strongest"
    """See `COVER_RULES`."""

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(m.name for m in self.members).items() if count > 1]
        if twice:
            raise KoboshiError(f"two specialists have the same name: {', '.join(twice)}")
        for m in self.members:
            for kind in m.kinds or ():
                check_kind(kind)
            if not m.joints or not set(m.mirrored) <= set(m.joints):
                raise KoboshiError(f"specialist '{m.name}' serves {m.joints}, and {m.mirrored} through the mirror")
        if self.cover not in COVERS:
            raise unknown("cover", self.cover, COVERS)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Each member's joints, as `FaultSchedule.groups` takes them."""
        return tuple(m.joints for m in self.members)

    @property
    def uses_mirror(self) -> bool:
        """Whether any member sees a joint through the mirror."""
        return any(m.mirrored for m in self.members)

    def only(self, members: list[int]) -> Assignment:
        """A smaller bank."""
        return Assignment(tuple(self.members[k] for k in members), self.cover)


def assign(
    robot: Robot,
    sharing: Sharing,
    joints: tuple[str, ...] | None = None,
    cover: Cover = "strongest",
    kinds: tuple[str, ...] | None = None,
) -> Assignment:
    """One specialist a joint, one a mirrored pair (of its first joint, and in the mirror), one a limb, or one for all.

    `joints`: which may fail; None: the robot's candidates. `kinds`: of fault that all of them serve; None: all.
    """
    names = joints or robot.fault_candidates
    for name in names:
        robot.joint_id(name)  # raises where there is no such joint
    if sharing not in SHARINGS:
        raise unknown("sharing", sharing, SHARINGS)
    members: dict[Sharing, Callable[[], tuple[Member, ...]]] = {
        "joint": lambda: tuple(Member(name, (name,)) for name in names),
        "mirrored_pair": lambda: _pairs(robot, names),
        "limb": lambda: _limbs(robot, names),
        "one": lambda: (Member("any", names),),
    }
    return Assignment(tuple(replace(m, kinds=kinds) for m in members[sharing]()), cover)


def _limbs(robot: Robot, names: tuple[str, ...]) -> tuple[Member, ...]:
    limbs = ((limb, tuple(j for j in joints if j in names)) for limb, joints in robot.groups.items())
    return tuple(Member(limb, joints) for limb, joints in limbs if joints)


def _pairs(robot: Robot, names: tuple[str, ...]) -> tuple[Member, ...]:
    members = []
    for name in names:
        other = robot.joint_names[robot.mirror_ids[robot.joint_id(name)]]
        if other == name or other not in names:
            members.append(Member(name, (name,)))
        elif robot.joint_id(name) < robot.joint_id(other):
            members.append(Member(pair_name(name, other), (name, other), mirrored=(other,)))
    uses = Counter(m.name for m in members)
    # A name that says too little to tell two members apart gives way to that of the member's own joint.
    return tuple(m if uses[m.name] == 1 else replace(m, name=m.joints[0]) for m in members)


def pair_name(one: str, other: str) -> str:
    """What two joints' names have in common: left_knee, right_knee -> knee; FL_hip, FR_hip -> F_hip.

    The names are compared word by word. Where two words differ, equally long ones (FL, FR) keep their common letters
    and others (left, right) are dropped. `one` itself where that leaves nothing.
    """
    ours, theirs = _words(one), _words(other)
    if len(ours) != len(theirs):
        return one
    common = "".join(map(_common, ours, theirs))
    # Of the separators around a word that is gone, the first stays, and none at either end.
    common = re.sub(r"([_\W])[_\W]+", r"\1", common)
    return re.sub(r"^[_\W]+|[_\W]+$", "", common) or one


def _words(name: str) -> list[str]:
    """left_hipPitch2 -> left, _, hip, Pitch, 2."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[\W_]", name)


def _common(one: str, other: str) -> str:
    if len(one) != len(other):
        return ""
    return "".join(a for a, b in zip(one, other, strict=True) if a == b)
