"""Some robots of a batch seen through the mirror."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.vec_env import MirrorMap, Obs


class Mirror:
    """A mirror map where it is used. Without one it shows everything as it is."""

    def __init__(self, mirror: MirrorMap | None, groups: tuple[str, ...], device: torch.device) -> None:
        """KoboshiError where one of the observation groups has no mirror image."""
        self._map = mirror.to(device) if mirror is not None else None
        for group in groups:
            if mirror is not None and group not in mirror.obs:
                with_one = ", ".join(mirror.obs) or "(none)"
                raise KoboshiError(f"observation group '{group}' has no mirror image; with one: {with_one}")

    def obs(self, obs: Obs, mirrored: Tensor) -> Obs:
        """`obs` (N, d) a group, of which the rows `mirrored` (N,) bool are mirror images."""
        if self._map is None:
            return obs
        return {group: _some(x, *self._map.obs[group], mirrored) for group, x in obs.items()}

    def action(self, action: Tensor, mirrored: Tensor) -> Tensor:
        """The same for actions (N, A)."""
        return _some(action, *self._map.action, mirrored) if self._map is not None else action


def _some(x: Tensor, ids: Tensor, signs: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored[:, None], x[:, ids] * signs, x)
