"""A rollout made ready for learning, and minibatches of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from koboshi.nets.state_tree import map_state
from koboshi.vec_env import Obs, State


class Batch(NamedTuple):
    """All lead with (K, B), B = T·M of T steps of M environments a member, step by step, or some of these rows."""

    obs: Obs
    """Group -> (K, B, d): normalised, of the actor and the critic, and what the actor's own loss reads."""
    next_obs: Obs
    """Group -> (K, B, d): the true next observations; empty unless the actor's loss needs them."""
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    value: Tensor
    """Of the policy that acted, in the value normaliser's unit, as are targets."""
    target: Tensor
    mask: Tensor | None
    old_output: Tensor
    """(K, B, A) of the actor that acted."""
    begins: Tensor
    """Whose memory begins with this row."""
    state: State
    """(K, M, …): what the actor carried before the first step; () where it carries nothing."""
    mirrored_state: State

    def rows(self, ids: Tensor) -> Batch:
        """Some transitions; for an actor that carries nothing."""
        return self._take(lambda x: x.index_select(1, ids), self.state, self.mirrored_state)

    def environments(self, ids: Tensor, steps: int) -> Batch:
        """All `steps` steps of some environments, with what was carried before the first."""

        def pick(x: Tensor) -> Tensor:
            return x.unflatten(1, (steps, -1)).index_select(2, ids).flatten(1, 2)

        states = (map_state(lambda x: x.index_select(1, ids), s) for s in (self.state, self.mirrored_state))
        return self._take(pick, *states)

    def _take(self, pick: Callable[[Tensor], Tensor], state: State, mirrored_state: State) -> Batch:
        fields: dict[str, Any] = {"state": state, "mirrored_state": mirrored_state}
        for name, x in self._asdict().items():
            if name in ("obs", "next_obs"):
                fields[name] = {group: pick(rows) for group, rows in x.items()}
            elif name not in fields:
                fields[name] = None if x is None else pick(x)
        return Batch(**fields)
