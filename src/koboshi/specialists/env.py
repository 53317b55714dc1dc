"""What K specialists learn in: the healthy policy walks until the router says that one of them must act."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from koboshi.algos.ppo import ActorCritic
from koboshi.errors import KoboshiError
from koboshi.robots import Robot
from koboshi.specialists import carry
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.routing import Router
from koboshi.vec_env import Obs, Step, VecEnv

FORGET = 0.998
"""A step's weight in the rate of falls fades by this with every later one: the last 10 s count most."""


class SpecialistEnv:
    """A `VecEnv` around another whose environment i carries member i // M's fault, on joint i % len(joints).

    Observations come mirrored where the member sees that joint through the mirror, and its actions go back
    through it. `extras["valid"]` marks the transitions in which the environment's own member acted; in all others
    the frozen healthy policy did. The wrapped environment must offer the groups `policy`, `critic`, and what
    the router reads.
    """

    def __init__(
        self,
        env: VecEnv,
        robot: Robot,
        healthy: ActorCritic,
        assignment: Assignment,
        router: Router,
        mirrors: dict[str, tuple[Tensor, Tensor]],
    ) -> None:
        """`mirrors`: (ids, signs) for "policy", "critic" and "action"."""
        members = len(assignment.members)
        if env.num_envs % members:
            raise KoboshiError(f"{env.num_envs} environments cannot be divided among {members} specialists")
        self._env, self._healthy, self._router = env, healthy.to(env.device), router
        self._mirrors = mirrors
        self.num_envs, self.device, self.action_space = env.num_envs, env.device, env.action_space
        self.obs_dims = {group: env.obs_dims[group] for group in ("policy", "critic")}
        own = [assignment.groups[i // (env.num_envs // members)] for i in range(env.num_envs)]
        joint = torch.tensor([robot.joint_id(group[i % len(group)]) for i, group in enumerate(own)])
        self._mirrored = assignment.is_mirrored(robot)[joint][:, None].to(env.device)
        self._own_joint = joint.to(env.device)
        self._reset = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        self._state: Any = None
        self._obs: Obs = {}
        self._acts = torch.zeros_like(self._reset)
        self.survived = torch.zeros(2, env.num_envs, device=env.device)
        """Falls and steps in which the own member acted, of each environment, fading."""

    def reset(self, seed: int) -> Obs:
        self._state = self._router.initial_state(self.num_envs, self.device)
        self._reset = torch.ones_like(self._reset)
        self.survived.zero_()
        return self._take(self._env.reset(seed))

    def _take(self, obs: Obs) -> Obs:
        self._obs = obs
        route, self._state = self._router.route(obs, self._reset, self._state)
        self._acts = route.joint == self._own_joint
        return self._seen(obs)

    def _seen(self, obs: Obs) -> Obs:
        return {group: self._through_mirror(obs[group], group) for group in self.obs_dims}

    def _through_mirror(self, x: Tensor, group: str) -> Tensor:
        ids, signs = self._mirrors[group]
        return torch.where(self._mirrored, x[:, ids] * signs, x)

    def step(self, action: Tensor) -> Step:
        acts = self._acts
        own = self._through_mirror(action, "action")
        if not acts.all():
            healthy = self._healthy.act(self._obs["policy"].unsqueeze(0)).squeeze(0)
            own = torch.where(acts[:, None], own, healthy)
        step = self._env.step(own)
        self._reset = step.terminated | step.truncated
        valid = acts & step.extras["valid"] if "valid" in step.extras else acts
        self.survived *= FORGET
        self.survived[0] += step.terminated & acts
        self.survived[1] += acts
        final = self._seen(step.final_obs)
        return step._replace(obs=self._take(step.obs), final_obs=final, extras=step.extras | {"valid": valid})

    def falls_per_s(self, members: int, step_dt: float) -> Tensor:
        """(K,) falls a second in which the member acted; recent seconds count most (see `FORGET`)."""
        falls, steps = self.survived.unflatten(1, (members, -1)).sum(2)
        # A member that has not acted has shown nothing, so it must not pass for one that never falls.
        return torch.where(steps > 0, falls / (steps * step_dt).clamp(min=1.0), torch.inf)

    def pop_log(self) -> dict[str, float]:
        return self._env.pop_log()

    def state_dict(self) -> dict[str, Tensor]:
        own = {"reset": self._reset, "acts": self._acts, "survived": self.survived}
        own |= carry.flatten(self._state)
        own |= {f"obs.{group}": x for group, x in self._obs.items()}
        own |= {f"env.{name}": x for name, x in self._env.state_dict().items()}
        return {name: x.clone() for name, x in own.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own = (state[name].to(self.device, copy=True) for name in ("reset", "acts", "survived"))
        self._reset, self._acts, self.survived = own
        obs = {k.removeprefix("obs."): v for k, v in state.items() if k.startswith("obs.")}
        self._obs = {group: x.to(self.device, copy=True) for group, x in obs.items()}
        # Saved before its first reset, it carries nothing yet.
        self._state = carry.unflatten(self._router.initial_state(self.num_envs, self.device), state) if obs else None
        self._env.load_state_dict({k.removeprefix("env."): v for k, v in state.items() if k.startswith("env.")})
