"""The bank of K specialists at work: each row of a batch is answered by the member that is in charge of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.nets.state_tree import is_empty, map_state
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.mirror import Mirror
from koboshi.specialists.routing import BELIEF, HEALTHY, Device, Route
from koboshi.vec_env import MirrorMap, Obs, State, anyone, reading_is_free

if TYPE_CHECKING:
    from koboshi.policies.actor_critic import ActorCritic


class Acting(NamedTuple):
    """What a bank of policies with a memory carries: each robot's own, of the member that acted last."""

    memory: State
    """Nested tuples of tensors with leading N."""
    member: Tensor
    """(N,) int64 who acted, −1 nobody."""
    mirrored: Tensor
    """(N,) bool."""


class Slots(NamedTuple):
    """Where R rows of a batch lie in a (K, width, …) batch, so that all members act in one pass."""

    rows: Tensor
    """(R,) int64."""
    slot: Tensor
    """(R,) int64: place in the batch flattened to (K · width, …)."""
    members: int
    width: int

    def pack(self, x: Tensor) -> Tensor:
        """(N, …) -> (K, width, …), zero where there is no row."""
        packed = x.new_zeros(self.members * self.width, *x.shape[1:])
        packed[self.slot] = x[self.rows]
        return packed.unflatten(0, (self.members, self.width))

    def unpack(self, x: Tensor) -> Tensor:
        """(K, width, …) -> (R, …)."""
        return x.flatten(0, 1)[self.slot]


class SpecialistBank:
    """K policies, who they are, and the mirror."""

    def __init__(self, policy: ActorCritic, assignment: Assignment, mirror: MirrorMap | None = None) -> None:
        """`mirror` may be None where no member sees the robot through it."""
        if policy.members != len(assignment.members):
            raise KoboshiError(f"a bank of {policy.members} policies cannot serve {len(assignment.members)} members")
        if assignment.uses_mirror and mirror is None:
            seen = next(m.name for m in assignment.members if m.mirrored)
            raise KoboshiError(f"specialist '{seen}' sees the robot through the mirror, and this robot has none")
        self.policy, self.assignment = policy, assignment
        self._groups = policy.actor.groups
        self._mirror = Mirror(mirror if assignment.uses_mirror else None, self._groups, policy.device)

    def initial_state(self, num_envs: int, device: Device = "cpu") -> State:
        """`()` where the policies carry nothing."""
        memory = self.policy.initial_state(num_envs)
        if is_empty(memory):
            return ()
        member = torch.full((num_envs,), HEALTHY, device=device)
        return Acting(map_state(lambda x: x[0].clone(), memory), member, torch.zeros_like(member, dtype=torch.bool))

    @torch.no_grad()
    def act(self, obs: Obs, route: Route, action: Tensor, reset: Tensor, state: State) -> tuple[Tensor, State]:
        """(N, A): `action` (the healthy policy's), replaced where a member is in charge; and the state after it.

        obs: group -> (N, …), raw. A member that takes charge of a robot begins with an empty memory.
        `reset` (N,) bool: rows that begin an episode.
        """
        acts = route.member != HEALTHY
        memory: State = ()
        anew = reset
        if isinstance(state, Acting):
            memory = state.memory
            anew = reset | (route.member != state.member) | (route.mirrored != state.mirrored)
        if anyone(acts):
            action, memory = self._answer(obs, route, acts, action, anew, memory)
        return action, Acting(memory, route.member, route.mirrored) if isinstance(state, Acting) else ()

    def _answer(
        self, obs: Obs, route: Route, acts: Tensor, action: Tensor, anew: Tensor, memory: State
    ) -> tuple[Tensor, State]:
        slots = _slots(route.member, acts, self.policy.members)
        told = obs | {BELIEF: route.belief.levels}
        seen = self._mirror.obs({group: told[group] for group in self._groups}, route.mirrored)
        packed = {group: slots.pack(x) for group, x in seen.items()}
        answer, after = self.policy.act(packed, map_state(slots.pack, memory), slots.pack(anew))
        acting, mirrored = acts[slots.rows], route.mirrored[slots.rows]

        def put(before: Tensor, new: Tensor) -> Tensor:
            kept = acting.view(-1, *[1] * (before.dim() - 1))
            return before.index_copy(0, slots.rows, torch.where(kept, new, before[slots.rows]))

        action = put(action, self._mirror.action(slots.unpack(answer), mirrored))
        return action, map_state(lambda before, x: put(before, slots.unpack(x)), memory, after)


def _slots(member: Tensor, acts: Tensor, members: int) -> Slots:
    """On the CPU only the rows that act, packed closely. Elsewhere all: to count them would wait for the device."""
    if not reading_is_free(member):
        rows = torch.arange(len(member), device=member.device)
        return Slots(rows, member.clamp(min=0) * len(member) + rows, members, len(member))
    rows = acts.nonzero().squeeze(1)
    member = member[rows]
    count = torch.nn.functional.one_hot(member, members).cumsum(0)
    width = int(count[-1].max())
    return Slots(rows, member * width + count.gather(1, member[:, None]).squeeze(1) - 1, members, width)
