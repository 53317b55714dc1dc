"""Robots as far as specialists know them, and policies and mirrors whose answers can be computed by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from koboshi.detect import Reading
from koboshi.errors import unknown
from koboshi.faults import KINDS
from koboshi.nets.normalizer import Normalizer
from koboshi.nets.state_tree import map_state
from koboshi.vec_env import ActionSpace, MirrorMap, Obs, ObsSpec, State


@dataclass(frozen=True)
class Body:
    """A robot's joints. `sides`: the two prefixes of joints that are each other's mirror images."""

    name: str
    joint_names: tuple[str, ...]
    sides: tuple[tuple[str, str], ...] = (("left_", "right_"),)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    never_fail: tuple[str, ...] = ()

    def joint_id(self, name: str) -> int:
        if name not in self.joint_names:
            raise unknown("joint", name, self.joint_names)
        return self.joint_names.index(name)

    @cached_property
    def mirror_ids(self) -> np.ndarray:
        def other(name: str) -> str:
            for one, two in self.sides:
                for a, b in ((one, two), (two, one)):
                    if name.startswith(a):
                        return b + name.removeprefix(a)
            return name

        return np.array([self.joint_id(other(name)) for name in self.joint_names])

    @cached_property
    def mirror_signs(self) -> np.ndarray:
        return np.where([any(w in n for w in ("yaw", "roll", "torso")) for n in self.joint_names], -1.0, 1.0)

    @property
    def mirrored(self) -> bool:
        return bool(self.sides)

    @property
    def fault_candidates(self) -> tuple[str, ...]:
        return tuple(n for n in self.joint_names if not any(word in n for word in self.never_fail))


def _h1() -> Body:
    legs = {s: tuple(f"{s}_{p}" for p in ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle")) for s in SIDES}
    arms = {s: tuple(f"{s}_{p}" for p in ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow")) for s in SIDES}
    groups = {"left_leg": legs["left"], "right_leg": legs["right"], "torso": ("torso",)}
    groups |= {"left_arm": arms["left"], "right_arm": arms["right"]}
    joints = (*legs["left"], *legs["right"], "torso", *arms["left"], *arms["right"])
    return Body("unitree_h1", joints, groups=groups, never_fail=("ankle",))


def _g1() -> Body:
    leg = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
    arm = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
    sided = [tuple(f"{s}_{p}_joint" for p in parts) for parts in (leg, arm) for s in SIDES]
    waist = ("waist_yaw_joint", "waist_roll_joint", "waist_pitch_joint")
    return Body("unitree_g1", (*sided[0], *sided[1], *waist, *sided[2], *sided[3]), never_fail=("ankle",))


def _go2() -> Body:
    joints = tuple(f"{leg}_{part}_joint" for leg in ("FL", "FR", "RL", "RR") for part in ("hip", "thigh", "calf"))
    groups = {leg: tuple(n for n in joints if n.startswith(leg)) for leg in ("FL", "FR", "RL", "RR")}
    return Body("unitree_go2", joints, (("FL_", "FR_"), ("RL_", "RR_")), groups)


SIDES = ("left", "right")
H1, G1, GO2 = _h1(), _g1(), _go2()
TINY = Body("tiny", ("left_knee", "left_hip", "right_knee", "right_hip", "torso"))
"""Five joints, small enough for tables by hand."""


def mirrors(body: Body, groups: dict[str, int], seed: int = 3) -> MirrorMap:
    """The body's own mirror of actions; of each group of even width one that swaps its halves, with random signs."""
    generator = torch.Generator().manual_seed(seed)
    obs = {}
    for group, width in groups.items():
        half = width // 2
        signs = torch.randint(0, 2, (half,), generator=generator).float() * 2 - 1
        obs[group] = (torch.arange(width).roll(half), torch.cat((signs, signs)))
    return MirrorMap(obs, (torch.from_numpy(body.mirror_ids), torch.from_numpy(body.mirror_signs).float()))


class ToyPolicies(nn.Module):
    """K linear policies that may carry a running sum of what they saw; as `ActorCritic` is called."""

    def __init__(self, members: int, obs_spec: dict[str, ObsSpec], action: ActionSpace, network: Any = None) -> None:
        super().__init__()
        self.members, self.obs_spec, self.action_space = members, obs_spec, action
        self.remembers = network == "remembers"
        self.actor = SimpleNamespace(groups=tuple(g for g in obs_spec if g != "critic"))
        width = sum(obs_spec[g].shape[0] for g in self.actor.groups)
        self.weight = nn.Parameter(torch.zeros(members, width, action.dim))
        self.log_std = nn.Parameter(torch.zeros(members, 1, action.dim))
        self.norm = Normalizer(members, width)

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def initial_state(self, batch: int) -> State:
        return self.weight.new_zeros(self.members, batch, self.weight.shape[1]) if self.remembers else ()

    @torch.no_grad()
    def act(self, obs: Obs, state: State, reset: Tensor) -> tuple[Tensor, State]:
        seen = torch.cat([obs[group] for group in self.actor.groups], 2)
        if self.remembers:
            state = seen = seen + 0.5 * state.masked_fill(reset[..., None], 0.0)
        return torch.bmm(seen, self.weight), state

    def member(self, k: int) -> dict[str, Tensor]:
        return {name: value[k : k + 1].clone() for name, value in self.state_dict().items()}

    @torch.no_grad()
    def set_member(self, k: int, state: dict[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value[k : k + 1] = state[name]

    def single(self) -> Alone:
        return Alone(self)


class Alone:
    """A stack of one for N robots; as `Policy`."""

    def __init__(self, stack: ToyPolicies) -> None:
        self.stack = stack

    def initial_state(self, num_envs: int, device: torch.device | str) -> State:
        return map_state(lambda x: x[0].to(device), self.stack.initial_state(num_envs))

    def act(self, obs: Obs, state: State, reset: Tensor) -> tuple[Tensor, State]:
        rows = {group: x[None] for group, x in obs.items()}
        action, state = self.stack.act(rows, map_state(lambda x: x[None], state), reset[None])
        return action[0], map_state(lambda x: x[0], state)


def make_policies(members: int, groups: dict[str, int], actions: int, remembers: bool = False, seed: int = 0):
    """Random weights that differ in every number."""
    spec = {group: ObsSpec((width,)) for group, width in groups.items()}
    stack = ToyPolicies(members, spec, ActionSpace(actions), "remembers" if remembers else None)
    generator = torch.Generator().manual_seed(seed)
    stack.weight.data.copy_(torch.randn(stack.weight.shape, generator=generator))
    stack.norm.count.fill_(1e6)
    return stack.requires_grad_(False)


def alone(stack: ToyPolicies, k: int) -> Alone:
    """Member k as an ordinary policy."""
    one = ToyPolicies(1, stack.obs_spec, stack.action_space, "remembers" if stack.remembers else None)
    one.load_state_dict(stack.member(k))
    return one.requires_grad_(False).single()


def told(severity: Tensor) -> Tensor:
    """(N, J) severities of dead joints as the environment's group `belief`, (N, K·J)."""
    return torch.nn.functional.pad(severity, (0, (len(KINDS) - 1) * severity.shape[1]))


def heard(logit: Tensor) -> Reading:
    """What a detector of dead joints alone makes of (N, J) logits."""
    return Reading(logit, torch.zeros_like(logit)[:, None], torch.ones_like(logit))


def ears_of(robot: Any) -> SimpleNamespace:
    """As much of a detector's spec as a router needs."""
    return SimpleNamespace(joint_names=list(robot.joint_names), kinds=["torque_loss"])
