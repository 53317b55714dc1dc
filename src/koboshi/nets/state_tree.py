"""Carried state: tensors in nested tuples, `()` where nothing is carried. As a flat dict and back, and leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.vec_env import State


def leaves(state: State) -> Iterator[Tensor]:
    """All tensors, in order."""
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from leaves(part)


def is_empty(state: State) -> bool:
    """Whether nothing is carried."""
    return next(leaves(state), None) is None


def map_state(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """A state like `state` whose tensors are function(its tensor, the others' tensors at the same place)."""
    if isinstance(state, Tensor):
        return function(state, *others)
    return _like(state, [map_state(function, *parts) for parts in zip(state, *others, strict=True)])


def flatten(state: State, prefix: str = "state") -> dict[str, Tensor]:
    """Name -> tensor, in order: for files."""
    return {f"{prefix}.{i}": leaf for i, leaf in enumerate(leaves(state))}


def unflatten(template: State, tensors: dict[str, Tensor], prefix: str = "state") -> State:
    """A state shaped like `template`, where its tensors lie, with the values that `flatten` gave.

    KoboshiError where a tensor is missing, or has another shape than the template's.
    """
    names = iter(range(sum(1 for _ in leaves(template))))

    def take(leaf: Tensor) -> Tensor:
        name = f"{prefix}.{next(names)}"
        if name not in tensors:
            raise KoboshiError(f"carried state '{name}' is missing")
        value = tensors[name]
        if value.shape != leaf.shape:
            raise KoboshiError(f"carried state '{name}' has the shape {tuple(value.shape)}, not {tuple(leaf.shape)}")
        return value.to(leaf.device, copy=True)

    return map_state(take, template)


def _like(state: State, parts: list[State]) -> State:
    # A named tuple takes its fields one by one, a plain one as a whole.
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
