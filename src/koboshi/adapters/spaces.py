"""Our spaces as Gymnasium's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from koboshi.errors import unknown
from koboshi.vec_env import ActionSpace, ObsSpec

if TYPE_CHECKING:
    from gymnasium import spaces


def observation_space(spec: Mapping[str, ObsSpec], group: str) -> spaces.Box:
    """Of one environment's group; numbers have no bounds, pictures' bytes have."""
    from gymnasium import spaces

    if group not in spec:
        raise unknown("observation group", group, spec)
    found = spec[group]
    if found.dtype == torch.uint8:
        return spaces.Box(0, 255, found.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, found.shape, np.float32)


def action_space(space: ActionSpace) -> spaces.Box | spaces.Discrete:
    """Of one environment."""
    from gymnasium import spaces

    if space.discrete:
        return spaces.Discrete(space.dim)
    low = np.full(space.dim, -np.inf) if space.low is None else np.array(space.low)
    high = np.full(space.dim, np.inf) if space.high is None else np.array(space.high)
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))
