"""The bank of K specialists at work: each row of a batch is answered by the member that its joint asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.algos.ppo import ActorCritic, MirrorMap
from koboshi.errors import KoboshiError
from koboshi.robots import Robot
from koboshi.specialists.assignment import Assignment


class SpecialistBank:
    """K policies, the table from joints to members, and the mirror."""

    def __init__(self, policy: ActorCritic, assignment: Assignment, robot: Robot, mirror: MirrorMap) -> None:
        if policy.members != len(assignment.members):
            raise KoboshiError(f"a bank of {policy.members} policies cannot serve {len(assignment.members)} members")
        device = next(policy.parameters()).device
        self.policy, self.assignment = policy, assignment
        self.mirror = MirrorMap(*(x.to(device) for x in mirror))
        self.member_of = assignment.member_of(robot).to(device)
        self.is_mirrored = assignment.is_mirrored(robot).to(device)

    @torch.no_grad()
    def act(self, obs: Tensor, joint: Tensor, action: Tensor) -> Tensor:
        """(N, A): `action` (the healthy policy's), replaced where joint (N,) int64 names a served joint (−1: none).

        obs (N, d) are the policy's raw observations.
        """
        rows = (self.member_of[joint] >= 0).nonzero().squeeze(1)
        if not len(rows):
            return action
        member, mirrored = self.member_of[joint[rows]], self.is_mirrored[joint[rows], None]
        seen = torch.where(mirrored, obs[rows][:, self.mirror.obs_ids] * self.mirror.obs_signs, obs[rows])
        done = self._act_sorted(seen, member)
        done = torch.where(mirrored, done[:, self.mirror.action_ids] * self.mirror.action_signs, done)
        return action.index_copy(0, rows, done)

    def _act_sorted(self, obs: Tensor, member: Tensor) -> Tensor:
        """Packs rows into one (K, most, d) batch, so that all members act in one pass."""
        counts = torch.bincount(member, minlength=self.policy.members)
        order = member.argsort(stable=True)
        place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[member[order]]
        packed = obs.new_zeros(self.policy.members, int(counts.max()), obs.shape[1])
        packed[member[order], place] = obs[order]
        answer = self.policy.act(packed)[member[order], place]
        return torch.empty_like(answer).index_copy_(0, order, answer)
