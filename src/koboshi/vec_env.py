"""The small contract between learning and any batched simulator (rsl_rl's `VecEnv` in our words)."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

Obs = dict[str, Tensor]


class Step(NamedTuple):
    """What one control step gives back; N environments."""

    obs: Obs
    """Group -> (N, d): what to act on next; of an environment that just ended, the first after its reset."""
    reward: Tensor
    """(N,) float."""
    terminated: Tensor
    """(N,) bool: ended by the task (a fall); the value after it is 0."""
    truncated: Tensor
    """(N,) bool: cut off by time; the value after it is that of `final_obs`. Never true together with `terminated`."""
    final_obs: Obs
    """Group -> (N, d): the true observation after this step, before any reset."""
    extras: dict[str, Any]
    """`valid`: (N,) bool, which transitions may be learnt from (absent: all)."""


class ActionSpace(NamedTuple):
    """`dim` continuous numbers, or one of `dim` choices where `discrete`."""

    dim: int
    discrete: bool = False


@runtime_checkable
class VecEnv(Protocol):
    """N environments stepped together; each resets itself."""

    num_envs: int
    device: torch.device
    action_space: ActionSpace

    @property
    def obs_dims(self) -> dict[str, int]:
        """Group -> width d."""
        ...

    def reset(self, seed: int) -> Obs:
        """Starts every environment afresh, as a function of the seed alone."""
        ...

    def step(self, action: Tensor) -> Step:
        """`action`: (N, dim) float, or (N,) int64 where the space is discrete."""
        ...

    def pop_log(self) -> dict[str, float]:
        """Name -> mean since the last call: what there is to log about episodes that ended."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a later `load_state_dict` needs to go on with the same numbers."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


def anyone(mask: Tensor) -> bool:
    """Whether any of (N,) bool is set; True without looking where looking would wait for the device."""
    return bool(mask.any()) if mask.device.type == "cpu" else True
