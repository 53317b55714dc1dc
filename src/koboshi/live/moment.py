"""What there is to see at one moment, and what happened: the only things that leave a session's thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from koboshi.faults import Fault

HEALTHY = "healthy policy"
"""The actor that no fault has called."""
NOBODY = "nobody"
"""The actor of a robot that lies on the ground, or for which nothing has been decided yet."""

NoteKind = Literal["fault", "healed", "alarm", "switch", "shove", "fall", "reset", "controller"]


class Note(NamedTuple):
    """Something that happened, and when (s since the session began)."""

    time: float
    kind: NoteKind
    text: str


class Moment(NamedTuple):
    """A robot of J joints after a control step; arrays are its own and nobody writes to them."""

    time: float
    """s since the session began; it does not jump back at a reset."""
    qpos: NDArray[np.float64]
    """(nq,) of the model that is stepped."""
    command: NDArray[np.float32]
    """(3,) v_x, v_y (m/s), yaw rate (rad/s), yaw frame."""
    velocity: NDArray[np.float32]
    """(3,) the same as it came out."""
    controller: str
    """Which of the session's controllers is in force."""
    actor: str
    """Who of it acts: HEALTHY, a specialist or NOBODY."""
    probability: NDArray[np.float32] | None
    """(J,) the router's belief that a joint is broken; None where nobody listens to it, or it has heard nothing."""
    alarm: NDArray[np.bool_] | None
    """(J,) the joints that it holds for broken."""
    levels: NDArray[np.float32] | None
    """(K, J) of these the severity that it believes, shared out among the K KINDS."""
    faults: Mapping[str, Fault]
    """Joint -> its fault in force."""
    fell: bool
    """It lies there and is about to stand up anew."""
    listens: bool
    """Whether somebody listens to a detector, or to the truth."""
