"""A carried state, tensors in nested tuples: as a flat dictionary for files, and leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from koboshi.vec_env import State


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """The same nest with `function` applied to each tensor."""
    return _rebuild(state, iter([function(leaf) for leaf in leaves(state)]))


def flatten(state: State, prefix: str = "state") -> dict[str, Tensor]:
    """Name ("prefix.0", "prefix.1", …) -> tensor, in order."""
    return {f"{prefix}.{i}": leaf for i, leaf in enumerate(leaves(state))}


def unflatten(template: State, tensors: dict[str, Tensor], prefix: str = "state") -> State:
    """A state shaped like `template` and on its devices, with copies of the tensors that `flatten` gave."""
    found = [tensors[f"{prefix}.{i}"].to(leaf.device, copy=True) for i, leaf in enumerate(leaves(template))]
    return _rebuild(template, iter(found))


def leaves(state: State) -> Iterator[Tensor]:
    """Its tensors, in order."""
    if isinstance(state, Tensor):
        yield state
    elif state is not None:
        for part in state:
            yield from leaves(part)


def _rebuild(template: State, tensors: Iterator[Tensor]) -> State:
    if isinstance(template, Tensor):
        return next(tensors)
    if template is None:
        return None
    parts = [_rebuild(part, tensors) for part in template]
    # A named tuple takes its fields one by one, a plain one as a whole.
    return type(template)(*parts) if hasattr(template, "_fields") else tuple(parts)
