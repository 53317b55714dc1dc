"""What K specialists learn in: the healthy policy walks until the router says that one of them must act."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.nets import state_tree
from koboshi.nets.distributed import sum_over_ranks
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.charge import own_seats
from koboshi.specialists.focus import Focus
from koboshi.specialists.mirror import Mirror
from koboshi.specialists.routing import BELIEF, Router
from koboshi.vec_env import MirrorMap, Obs, Policy, State, Step, VecEnv, anyone

FORGET = 0.998
"""A step's weight in the rate of falls fades by this with every later one: the last 10 s count most."""


class SpecialistEnv:
    """A `VecEnv` around another whose environment i carries member i // M's fault, on joint i % len(joints).

    Observations come mirrored where the member sees that joint through the mirror, and its actions go back
    through it. `extras["valid"]` marks the transitions in which the environment's own member acted, through the
    mirror or not as that joint asks; in all others the frozen healthy policy did, and nothing is learnt from them.
    `extras["anew"]` marks where it takes charge next.
    Where another acts next, the learner's advantages end: they hold no reward that the member did not earn.
    """

    def __init__(
        self,
        env: VecEnv,
        healthy: Policy,
        assignment: Assignment,
        router: Router,
        groups: tuple[str, ...],
        mirror: MirrorMap | None = None,
        focus: Focus | None = None,
    ) -> None:
        """`groups`: what the specialists' actors and critics see; `mirror` must show each where a member needs it.

        `focus`: draws the environments' faults, and is told who falls.
        """
        members = len(assignment.members)
        if env.num_envs % members:
            raise KoboshiError(f"{env.num_envs} environments cannot be divided among {members} specialists")
        if assignment.uses_mirror and mirror is None:
            raise KoboshiError("specialists that share mirrored joints need a robot and a task with a mirror")
        self._env, self._healthy, self._router, self._members = env, healthy, router, members
        self._mirror = Mirror(mirror if assignment.uses_mirror else None, groups, env.device)
        self.num_envs, self.device, self.action_space = env.num_envs, env.device, env.action_space
        self.obs_spec = {group: env.obs_spec[group] for group in groups}
        self._member, self._mirrored = (x.to(env.device) for x in own_seats(assignment, env.num_envs))
        self._reset = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        self._healthy_state: State = ()
        self._router_state: State = ()
        self._obs: Obs = {}
        self._believed: Obs = {}
        self._acts = torch.zeros_like(self._reset)
        self._focus = focus
        self.survived = torch.zeros(2, env.num_envs, device=env.device)
        """Falls and steps in which the own member acted, of each environment, fading."""

    def reset(self, seed: int) -> Obs:
        self._healthy_state, self._router_state = self._initial_states()
        self._reset = torch.ones_like(self._reset)
        self.survived.zero_()
        return self._take(self._env.reset(seed))

    def _initial_states(self) -> tuple[State, State]:
        return tuple(part.initial_state(self.num_envs, self.device) for part in (self._healthy, self._router))

    def _take(self, obs: Obs) -> Obs:
        self._obs = obs
        route, self._router_state = self._router.route(obs, self._reset, self._router_state)
        self._acts = (route.member == self._member) & (route.mirrored == self._mirrored)
        self._believed = {BELIEF: route.belief.levels}
        return self._seen(obs)

    def _seen(self, obs: Obs) -> Obs:
        told = obs | self._believed
        return self._mirror.obs({group: told[group] for group in self.obs_spec}, self._mirrored)

    def step(self, action: Tensor) -> Step:
        acts = self._acts
        own = self._mirror.action(action, self._mirrored)
        # Where it has a memory the healthy policy listens on while a member acts, as it does at run time.
        if anyone(~acts) or not state_tree.is_empty(self._healthy_state):
            healthy, self._healthy_state = self._healthy.act(self._obs, self._healthy_state, self._reset)
            own = torch.where(acts[:, None], own, healthy)
        broken = (self._focus.cell, self._focus.alone) if self._focus is not None else None
        step = self._env.step(own)
        self._reset = step.terminated | step.truncated
        valid = acts & step.extras["valid"] if "valid" in step.extras else acts
        self.survived *= FORGET
        self.survived[0] += step.terminated & valid
        self.survived[1] += valid
        if self._focus is not None and broken is not None:
            cell, alone = broken
            self._focus.saw(cell, step.terminated, valid & alone)
        # The router is not asked after an episode's last step: what it believed before stands.
        final, obs = self._seen(step.final_obs), self._take(step.obs)
        # A member that takes charge begins with an empty memory, as `SpecialistBank` has it.
        extras = step.extras | {"valid": valid, "anew": self._acts & ~acts}
        return step._replace(obs=obs, final_obs=final, extras=extras)

    def falls_per_s(self, step_dt: float) -> Tensor:
        """(K,) falls a second in which the member acted, on all processes; recent seconds count most (`FORGET`)."""
        falls, steps = sum_over_ranks(self.survived.unflatten(1, (self._members, -1)).sum(2))
        # A member that has not acted has shown nothing, so it must not pass for one that never falls.
        return torch.where(steps > 0, falls / (steps * step_dt).clamp(min=1.0), torch.inf)

    def pop_log(self) -> dict[str, float]:
        return self._env.pop_log()

    def state_dict(self) -> dict[str, Tensor]:
        own = {"reset": self._reset, "acts": self._acts, "survived": self.survived}
        own |= state_tree.flatten(self._healthy_state, "healthy") | state_tree.flatten(self._router_state, "router")
        own |= {f"obs.{group}": x for group, x in self._obs.items()}
        own |= {f"believed.{group}": x for group, x in self._believed.items()}
        own |= {f"env.{name}": x for name, x in self._env.state_dict().items()}
        if self._focus is not None:
            own |= {f"focus.{name}": x for name, x in self._focus.state_dict().items()}
        return {name: x.clone() for name, x in own.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own = (state[name].to(self.device, copy=True) for name in ("reset", "acts", "survived"))
        self._reset, self._acts, self.survived = own
        self._obs, self._believed = (self._under(state, part) for part in ("obs.", "believed."))
        if self._obs:  # saved before its first reset, it carries nothing yet
            healthy, router = self._initial_states()
            self._healthy_state = state_tree.unflatten(healthy, state, "healthy")
            self._router_state = state_tree.unflatten(router, state, "router")
        self._env.load_state_dict(self._under(state, "env."))
        if self._focus is not None:
            self._focus.load_state_dict(self._under(state, "focus."))

    def _under(self, state: dict[str, Tensor], part: str) -> Obs:
        found = {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
        return {group: x.to(self.device, copy=True) for group, x in found.items()}
