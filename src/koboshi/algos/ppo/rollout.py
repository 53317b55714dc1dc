"""Transitions of one iteration and their advantages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from koboshi.vec_env import ActionSpace, Obs, ObsSpec, State


@dataclass
class Rollout:
    """T steps of N environments. Its tensors are the learner's, which fills them anew in each iteration."""

    obs: Obs
    """Group -> (T, N, …), raw."""
    action: Tensor
    """(T, N, A), or (T, N) where discrete."""
    reward: Tensor
    """(T, N)."""
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    """(T, N) bool: which transitions may be learnt from."""
    anew: Tensor
    """(T, N) bool: where the next row begins with an empty memory though the episode goes on."""
    _: KW_ONLY
    last_obs: Obs
    """Group -> (N, …): after the last step, of episodes that go on; of the critic's groups at least."""
    final_value: Tensor
    """(T, N): the value of the true observation after the step; read only where `truncated`."""
    first: Tensor | None = None
    """(N,) bool: whose memory begins with the first row; None: nobody's. Only actors that carry something ask."""
    state: State = ()
    """What the actor carried before the first row; leads with (K, M)."""
    mirrored_state: State = ()
    """What it carried of the mirror image."""
    next_obs: Obs | None = None
    """Group -> (T, N, …): the true observation after the step, before any reset; where the actor's loss needs it."""

    @property
    def begins(self) -> Tensor:
        """(T, N) bool: whose memory begins with this row."""
        ends = self.ends(slice(None))
        first = torch.zeros_like(ends[0]) if self.first is None else self.first
        return torch.cat((first.unsqueeze(0), ends[:-1]))

    def ends(self, steps: int | slice) -> Tensor:
        """(N,) or (T, N) bool: whose memory ends with these rows."""
        return self.terminated[steps] | self.truncated[steps] | self.anew[steps]

    @staticmethod
    def empty(
        steps: int,
        num_envs: int,
        obs_spec: Mapping[str, ObsSpec],
        action: ActionSpace,
        device: torch.device,
        next_groups: Iterable[str] = (),
    ) -> Rollout:
        """Room for a rollout; all valid."""

        def flag(value: bool = False) -> Tensor:
            return torch.full((steps, num_envs), value, device=device)

        def room(groups: Iterable[str], *leading: int) -> Obs:
            specs = {group: obs_spec[group] for group in groups}
            return {g: torch.zeros(*leading, *s.shape, dtype=s.dtype, device=device) for g, s in specs.items()}

        chosen = (num_envs,) if action.discrete else (num_envs, action.dim)
        kind = torch.int64 if action.discrete else torch.float32
        return Rollout(
            room(obs_spec, steps, num_envs),
            torch.zeros(steps, *chosen, dtype=kind, device=device),
            torch.zeros(steps, num_envs, device=device),
            flag(),
            flag(),
            flag(True),
            flag(),
            last_obs={},
            final_value=torch.zeros(steps, num_envs, device=device),
            next_obs=room(next_groups, steps, num_envs) or None,
        )


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), all (T, N).

    `next_value[t]` is the value of the true observation after step t: of `final_obs` where time ran out. They do not
    run on into a step that is not `valid`: another acted there, and what it earned says nothing of this policy.
    """
    delta = reward + gamma * next_value * ~terminated - value
    keep = gamma * lam * ~(terminated | truncated)
    keep[:-1] *= valid[1:]
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + keep[t] * running
        advantage[t] = running
    return advantage
