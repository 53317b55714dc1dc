"""Errors a user can act on: each names the thing, its value and what would be valid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KoboshiError(Exception):
    """Something the user gave or the machine lacks; the command line prints it in one line and exits with 2."""


def unknown(kind: str, name: object, valid: Iterable[str], plural: str | None = None) -> KoboshiError:
    """The error for a name that is not one of `valid`, with the nearest valid name as a guess.

    >>> str(unknown("joint", "left_kne", ["left_knee", "torso"]))
    "no joint 'left_kne'; did you mean 'left_knee'? joints: left_knee, torso"
    """
    names = list(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    guess = f" did you mean '{near[0]}'?" if near else ""
    return KoboshiError(f"no {kind} '{name}';{guess} {plural or kind + 's'}: {', '.join(names) or '(none)'}")


def at_least(name: str, value: float, least: float) -> None:
    """KoboshiError where a setting is below `least`, or no number."""
    if not value >= least:
        raise KoboshiError(f"{name} must be at least {least}, not {value}")
