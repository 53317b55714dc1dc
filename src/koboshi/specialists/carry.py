"""A router's carried state, nested tuples of tensors, as a flat list and back: for files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def flatten(state: Any, prefix: str = "router") -> dict[str, Tensor]:
    """Name -> tensor, in order."""
    return {f"{prefix}.{i}": leaf for i, leaf in enumerate(_leaves(state))}


def unflatten(template: Any, tensors: dict[str, Tensor], prefix: str = "router") -> Any:
    """A state shaped like `template` with the tensors that `flatten` gave."""
    return _rebuild(template, iter([tensors[f"{prefix}.{i}"] for i in range(len(list(_leaves(template))))]))


def _leaves(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif state is not None:
        for part in state:
            yield from _leaves(part)


def _rebuild(template: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(template, Tensor):
        return next(tensors).clone()
    if template is None:
        return None
    parts = [_rebuild(part, tensors) for part in template]
    # A named tuple takes its fields one by one, a plain one as a whole.
    return type(template)(*parts) if hasattr(template, "_fields") else tuple(parts)
