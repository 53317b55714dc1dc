"""Who is in charge: an assignment as matrices, from a set of faults to a member, without waiting for a GPU.

A fault is a column, kind · J + joint: K KINDS of J joints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from koboshi.faults import KINDS
from koboshi.robots import Robot
from koboshi.specialists.assignment import Assignment
from koboshi.vec_env import anyone

NOBODY = 0
"""The seat of the healthy policy: it serves no fault, so it covers the empty set and no other."""


class Charge(NamedTuple):
    """Who is in charge of N robots, and the faults they are in charge for."""

    held: Tensor
    """(N, K·J) bool."""
    seat: Tensor
    """(N,) int64, row of `SeatTable`."""
    member: Tensor
    """(N,) int64, −1 the healthy policy."""
    mirrored: Tensor
    """(N,) bool: the member sees the robot through the mirror."""


class SeatTable:
    """An assignment's S seats. A seat is a member, seen either straight or through the mirror; seat 0 is nobody's.

    The seats that serve the fewest joints come first, so that the first that covers a set is the closest to it.
    Through the mirror a member serves its mirrored joints, and those of its joints that are their own mirror image.
    Kinds that no member serves leave everything as it is, the healthy policy in charge.
    """

    def __init__(self, assignment: Assignment, robot: Robot) -> None:
        served = {(-1, False): frozenset[int]()} | served_joints(assignment, robot)
        seats = sorted(served, key=lambda seat: len(served[seat]))
        self.member = torch.tensor([k for k, _ in seats])
        self.mirrored = torch.tensor([m for _, m in seats])
        serves = torch.zeros(len(seats), len(KINDS), len(robot.joint_names), dtype=torch.bool)
        for row, (k, _) in enumerate(seats[1:], start=1):
            kinds = torch.tensor([KINDS.index(kind) for kind in assignment.members[k].kinds or KINDS])
            serves[row, kinds[:, None], list(served[seats[row]])] = True
        self.serves = serves.flatten(1)
        # A kind that no member serves, on whatever joint, asks for nobody: the others' faults decide.
        served_kinds = serves.any(0).any(1)
        self._matters = served_kinds.repeat_interleave(serves.shape[2])
        # (K·J, S): a product with faults counts those that a seat does not serve.
        self._lacks = (~self.serves).T.float()
        self.of_fault = self.serves.to(torch.uint8).argmax(0)
        """(K·J,) int64: the closest seat that serves a fault, NOBODY where none does."""
        self._healthy_covers = assignment.cover == "healthy"
        self._copies: dict[torch.device, SeatTable] = {}

    def on(self, device: torch.device) -> SeatTable:
        """This table on a device; copied there once."""
        if self.serves.device == device:
            return self
        if device not in self._copies:
            copy = object.__new__(SeatTable)
            copy.__dict__ |= {n: v.to(device) if isinstance(v, Tensor) else v for n, v in self.__dict__.items()}
            self._copies[device] = copy
        return self._copies[device]

    def seat_of(self, member: Tensor, mirrored: Tensor) -> Tensor:
        """(N,) members, seen through the mirror or not -> (N,) their seats."""
        same = (self.member == member[:, None]) & (self.mirrored == mirrored[:, None])
        return same.to(torch.uint8).argmax(1)

    def initial(self, num_envs: int, device: torch.device | str) -> Charge:
        """Nobody is in charge of N robots."""
        held = torch.zeros(num_envs, self.serves.shape[1], dtype=torch.bool, device=device)
        seat = torch.full((num_envs,), NOBODY, device=device)
        return Charge(held, seat, torch.full_like(seat, -1), torch.zeros_like(seat, dtype=torch.bool))

    def take(self, held: Tensor, strength: Tensor, reset: Tensor | None, before: Charge) -> Charge:
        """Who is in charge now that the faults `held` (N, K·J) stand; strength (N, K·J) says who is first of several.

        Whoever is in charge stays while a fault that they serve stands, unless another covers the whole set
        and they do not. `reset` (N,) bool: robots that begin an episode, with nobody in charge; None: there are none.
        """
        # The same faults give the same answer again, and asking is cheaper than answering.
        if reset is None and not anyone(held != before.held):
            return before
        present = before.seat if reset is None else before.seat.masked_fill(reset, NOBODY)
        seat = self._seat(held & self._matters, strength, present)
        return Charge(held, seat, self.member[seat], self.mirrored[seat])

    def _seat(self, held: Tensor, strength: Tensor, present: Tensor) -> Tensor:
        covers = held.to(self._lacks.dtype) @ self._lacks == 0
        found, closest = covers.to(torch.uint8).max(1)
        holds = (held & self.serves[present]).any(1)
        stays = holds & covers.gather(1, present[:, None]).squeeze(1)
        if self._healthy_covers:
            uncovered = torch.full_like(present, NOBODY)
        else:
            uncovered = torch.where(holds, present, self._strongest(held, strength))
        return torch.where(stays, present, torch.where(found > 0, closest, uncovered))

    def _strongest(self, held: Tensor, strength: Tensor) -> Tensor:
        """(N,) the seat of the strongest fault among those that any member serves."""
        candidates = held & (self.of_fault != NOBODY)
        greatest, fault = strength.masked_fill(~candidates, -1.0).max(1)
        return torch.where(greatest >= 0, self.of_fault[fault], NOBODY)


def served_joints(assignment: Assignment, robot: Robot) -> dict[tuple[int, bool], frozenset[int]]:
    """(member, mirrored) -> the joints that this seat serves, by number; seats that serve none are left out."""
    served = {}
    for k, m in enumerate(assignment.members):
        joints, mirrored = ({robot.joint_id(name) for name in names} for names in (m.joints, m.mirrored))
        served[k, False] = frozenset(joints - mirrored)
        if mirrored:
            served[k, True] = frozenset(mirrored | {j for j in joints if robot.mirror_ids[j] == j})
    return {seat: joints for seat, joints in served.items() if joints}


def own_seats(assignment: Assignment, num_envs: int) -> tuple[Tensor, Tensor]:
    """(N,) member and (N,) mirrored of environments in one block a member, faulted by `FaultSchedule.groups`.

    Environment i serves the joint number i % len(joints) of its member.
    """
    block = num_envs // len(assignment.members)
    members = [assignment.members[i // block] for i in range(num_envs)]
    mirrored = [m.joints[i % len(m.joints)] in m.mirrored for i, m in enumerate(members)]
    return torch.arange(num_envs) // block, torch.tensor(mirrored)
