"""The small contract between learning and any batched simulator (rsl_rl's `VecEnv` in our words)."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from koboshi.errors import unknown

Obs = dict[str, Tensor]
"""Group -> (N, …). A group whose terms are kept apart has one key a term, "group.term"."""

State = Any
"""What a policy carries from step to step: tensors in nested tuples, () where it carries nothing."""


class Place(NamedTuple):
    """Where a named term lies in a vector."""

    name: str
    """`joint_pos`; of a group with a history that of a step ago is `joint_pos-1`, and so on."""
    start: int
    width: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.width)

    @property
    def is_past(self) -> bool:
        """Whether it is of an earlier step."""
        return age_of(self.name) > 0


def name_of_past(name: str, age: int) -> str:
    """What a term of so many steps ago is called."""
    return f"{name}-{age}" if age else name


def age_of(name: str) -> int:
    """So many steps ago is what a term of this name shows; the inverse of `name_of_past`."""
    term, _, age = name.rpartition("-")
    return int(age) if term and age.isdigit() else 0


class ObsSpec(NamedTuple):
    """What one environment shows in a group."""

    shape: tuple[int, ...]
    """(d,), or (3, height, width) for a picture."""
    dtype: torch.dtype = torch.float32
    """float32, or uint8 for a picture with values 0 to 255."""
    terms: tuple[Place, ...] = ()
    """What a vector is made of, without gaps; () where its numbers have no names."""

    def place(self, name: str) -> slice:
        """Where the numbers of a term lie; KoboshiError where there is none of that name."""
        found = {term.name: term.slice for term in self.terms}
        if name not in found:
            raise unknown("observed term", name, [term.name for term in self.terms if not term.is_past], "terms here")
        return found[name]

    @property
    def newest(self) -> slice:
        """Where the numbers of the present step lie; of a group without a history, all."""
        now = [term for term in self.terms if not term.is_past]
        return slice(now[0].start, now[-1].start + now[-1].width) if now else slice(0, self.width)

    @property
    def width(self) -> int:
        """The number of values."""
        return torch.Size(self.shape).numel()


class ActionSpace(NamedTuple):
    """`dim` continuous numbers, or one of `dim` choices where `discrete`."""

    dim: int
    discrete: bool = False
    low: tuple[float, ...] | None = None
    """Least values of continuous actions, `dim` numbers; None: no bound."""
    high: tuple[float, ...] | None = None
    """Greatest values."""


class Step(NamedTuple):
    """What one control step gives back; N environments.

    The tensors belong to the environment, which may reuse them at its next call: who keeps one copies it.
    """

    obs: Obs
    """Group -> (N, …): what to act on next; of an environment that just ended, the first after its reset."""
    reward: Tensor
    """(N,) float."""
    terminated: Tensor
    """(N,) bool: ended by the task (a fall); the value after it is 0."""
    truncated: Tensor
    """(N,) bool: cut off by time; the value after it is that of `final_obs`. Never true together with `terminated`."""
    final_obs: Obs
    """Group -> (N, …): the true observation after this step, before any reset."""
    extras: dict[str, Any]
    """`valid`: (N,) bool, which transitions may be learnt from (absent: all). `anew`: (N,) bool, where whoever acts
    next begins with an empty memory though the episode goes on (absent: nowhere)."""


@runtime_checkable
class VecEnv(Protocol):
    """N environments stepped together; each resets itself."""

    num_envs: int
    device: torch.device
    action_space: ActionSpace

    @property
    def obs_spec(self) -> dict[str, ObsSpec]:
        """Group -> shape and type of what one environment shows."""
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
        """Everything that a later `load_state_dict` needs to continue with the same numbers."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


class Policy(Protocol):
    """What plays and is evaluated: acts for N environments, pure given what it carries."""

    def initial_state(self, num_envs: int, device: torch.device) -> State:
        """What is carried before the first step; its tensors lead with N."""
        ...

    def act(self, obs: Obs, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """(N, A) the most likely actions, and what to carry on. `reset` (N,) bool: whose memory begins now."""
        ...


class MirrorMap(NamedTuple):
    """The mirror image of x is signs · x[ids]; observations are flattened to (…, d) first."""

    obs: dict[str, tuple[Tensor, Tensor]]
    """Group -> (ids, signs), each (d,), of all groups that the actor sees."""
    action: tuple[Tensor, Tensor]
    """(ids, signs), each (A,)."""

    def to(self, device: torch.device) -> MirrorMap:
        """The same on a device."""
        moved = {group: (ids.to(device), signs.to(device)) for group, (ids, signs) in self.obs.items()}
        return MirrorMap(moved, (self.action[0].to(device), self.action[1].to(device)))

    def image(self, obs: Obs) -> Obs:
        """The mirror image of those groups (…, d) that have one."""
        return {group: obs[group][..., ids] * signs for group, (ids, signs) in self.obs.items() if group in obs}


def reading_is_free(tensor: Tensor) -> bool:
    """Whether asking for a value of `tensor` waits for nobody: elsewhere than on the CPU it stops the pipeline, and
    while a program is exported there is none."""
    return tensor.device.type == "cpu" and not torch.compiler.is_exporting()


def anyone(mask: Tensor) -> bool:
    """Whether any is set; elsewhere than on the CPU True without asking, for asking would wait for the device."""
    return bool(mask.any()) if reading_is_free(mask) else True


def rows_of(mask: Tensor) -> Tensor:
    """Indices of at least the rows that are set: those alone on the CPU; elsewhere all, for looking would wait."""
    return mask.nonzero()[:, 0] if reading_is_free(mask) else torch.arange(len(mask), device=mask.device)
