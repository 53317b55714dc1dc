"""What other libraries are given to log."""

from __future__ import annotations

from typing import Any

import torch

from koboshi.vec_env import VecEnv

EVERY = 24
"""Steps between two looks at what there is to log."""


class PeriodicLog:
    """Figures of the episodes that ended, now and then: to ask waits for the device."""

    def __init__(self, env: VecEnv) -> None:
        self._env, self._steps = env, 0

    def after_step(self) -> dict[str, Any]:
        """`{"log": name -> () mean}` in every so many steps, otherwise nothing."""
        self._steps += 1
        if self._steps % EVERY:
            return {}
        return {"log": {name: torch.tensor(value) for name, value in self._env.pop_log().items()}}
