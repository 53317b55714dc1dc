"""The same walk for every controller until shortly before anything breaks.

What is judged is what a controller does with a fault, so all of them are given the same robots: for the first moments
of an episode the healthy policy walks, and whoever is judged listens. Then it takes over. The walk is made again for
each of them, and on one machine it is the same to the last bit; `WalkDigest` tells where it was not.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from koboshi.envs import Env
from koboshi.specialists.controller import Controller, Decision
from koboshi.specialists.routing import Device
from koboshi.vec_env import Obs, Policy, State


class HandedOver(Controller):
    """`walker` acts for `steps` control steps, then `judged` does, which has listened from the beginning."""

    def __init__(self, walker: Policy, judged: Controller, steps: int) -> None:
        self.walker, self.judged, self.steps = walker, judged, steps

    def initial_state(self, num_envs: int, device: Device = "cpu") -> State:
        """(steps done, the walker's, the judged one's)."""
        walker = self.walker.initial_state(num_envs, torch.device(device))
        return 0, walker, self.judged.initial_state(num_envs, device)

    @torch.no_grad()
    def act(self, obs: Obs, reset: Tensor, state: State) -> tuple[Decision, State]:
        done, walker, judged = state
        decision, judged = self.judged.act(obs, reset, judged)
        if done < self.steps:
            action, walker = self.walker.act(obs, walker, reset)
            decision = decision._replace(action=action)
        return decision, (done + 1, walker, judged)


class WalkDigest:
    """Watches a rollout (`rollout(watch=…)`) and remembers the sha256 of its physics at the handover."""

    def __init__(self, steps: int) -> None:
        self._left, self.value = steps, ""

    def __call__(self, env: Env, decision: Decision) -> None:
        self._left -= 1
        if self._left == 0:
            state = torch.cat((env.qpos, env.qvel), dim=1).double().cpu()
            self.value = hashlib.sha256(state.numpy().tobytes()).hexdigest()[:16]
