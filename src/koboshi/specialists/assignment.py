"""Which specialist serves which joint: a plain table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from koboshi.errors import unknown
from koboshi.robots import Robot

Sharing = Literal["joint", "mirrored_pair", "limb"]
SHARINGS: tuple[str, ...] = ("joint", "mirrored_pair", "limb")


@dataclass(frozen=True)
class Member:
    """One specialist: its name, the joints it serves, and those among them that it sees through the mirror."""

    name: str
    joints: tuple[str, ...]
    mirrored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """All specialists of a bank. Joints that no member serves are left to the healthy policy."""

    members: tuple[Member, ...]

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Each member's joints, as `FaultSchedule.groups` takes them."""
        return tuple(m.joints for m in self.members)

    def member_of(self, robot: Robot) -> Tensor:
        """(J + 1,) int64: joint -> member, −1 where none; the last entry stands for 'no joint' (index −1)."""
        table = torch.full((len(robot.joint_names) + 1,), -1)
        for k, member in enumerate(self.members):
            for joint in member.joints:
                table[robot.joint_id(joint)] = k
        return table

    def is_mirrored(self, robot: Robot) -> Tensor:
        """(J + 1,) bool: joints whose member sees the robot through the mirror."""
        table = torch.zeros(len(robot.joint_names) + 1, dtype=torch.bool)
        for member in self.members:
            for joint in member.mirrored:
                table[robot.joint_id(joint)] = True
        return table

    def only(self, keep: list[int]) -> Assignment:
        """A smaller bank."""
        return Assignment(tuple(self.members[k] for k in keep))


def assign(robot: Robot, sharing: Sharing, joints: tuple[str, ...] | None = None) -> Assignment:
    """One specialist a joint, one a mirrored pair (the left side's, the right seen in the mirror), or one a limb."""
    names = joints or robot.fault_candidates
    for name in names:
        robot.joint_id(name)  # raises where there is no such joint
    if sharing == "joint":
        return Assignment(tuple(Member(n, (n,)) for n in names))
    if sharing == "mirrored_pair":
        return _pairs(robot, names)
    if sharing == "limb":
        limbs = ((g, tuple(j for j in members if j in names)) for g, members in robot.groups.items())
        return Assignment(tuple(Member(g, members) for g, members in limbs if members))
    raise unknown("sharing", sharing, SHARINGS)


def _pairs(robot: Robot, names: tuple[str, ...]) -> Assignment:
    members = []
    for name in names:
        other = robot.joint_names[robot.mirror_ids[robot.joint_id(name)]]
        if other == name or other not in names:
            members.append(Member(name, (name,)))
        elif robot.joint_id(name) < robot.joint_id(other):
            members.append(Member(name.removeprefix("left_"), (name, other), mirrored=(other,)))
    return Assignment(tuple(members))
