"""A Gymnasium vector environment as a `VecEnv`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from koboshi.errors import KoboshiError, at_least
from koboshi.vec_env import ActionSpace, Obs, ObsSpec, Step

if TYPE_CHECKING:
    from gymnasium import Space
    from gymnasium.vector import VectorEnv


class GymnasiumVecEnv:
    """N Gymnasium environments on the CPU with the one observation group `policy`.

    `env` must reset itself in the step in which an episode ends (`AutoresetMode.SAME_STEP`) or not at all
    (`DISABLED`: then the adapter resets it): with `NEXT_STEP`, Gymnasium's default, every episode is followed
    by a step that ignores the action. Observations are boxes: bytes (pictures) stay as they are, all else is
    flattened to (N, d) float32. Actions are one choice (`Discrete`) or a box, whose bounds `action_space` names;
    box actions are clipped to it, and `scale_actions` maps −1..1 to low..high.

    Raises KoboshiError for other spaces and for `NEXT_STEP`.
    """

    def __init__(self, env: VectorEnv, *, scale_actions: bool = False) -> None:
        from gymnasium.vector import AutoresetMode

        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
            raise KoboshiError(f"the autoreset mode of {env} is {mode}; valid: SAME_STEP, DISABLED")
        self.env, self._resets_itself = env, mode == AutoresetMode.SAME_STEP
        self.num_envs, self.device = env.num_envs, torch.device("cpu")
        self.obs_spec = {"policy": _observation_spec(env.single_observation_space)}
        self._actions = _Actions(env.single_action_space, scale_actions)
        self.action_space = self._actions.space
        self._return = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, dtype=np.int64)
        self._ended: list[tuple[float, int]] = []

    @classmethod
    def make(cls, name: str, num_envs: int, *, scale_actions: bool = False, **kwargs: Any) -> GymnasiumVecEnv:
        """`num_envs` environments of a registered name, stepped in turn; `kwargs` go to `gymnasium.make_vec`.

        Raises KoboshiError where gymnasium is not installed or does not make such an environment.
        """
        try:
            import gymnasium
        except ImportError as error:
            raise KoboshiError("gymnasium is not installed; pip install 'koboshi[gym]'") from error
        at_least("num_envs", num_envs, 1)
        vector_kwargs = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        options = {"vectorization_mode": "sync", "vector_kwargs": vector_kwargs} | kwargs
        try:
            env = gymnasium.make_vec(name, num_envs, **options)
        except gymnasium.error.Error as error:
            raise KoboshiError(f"gymnasium makes no environment '{name}': {error}") from error
        return cls(env, scale_actions=scale_actions)

    def reset(self, seed: int) -> Obs:
        """Starts every environment afresh, as a function of the seed alone."""
        obs, _ = self.env.reset(seed=seed)
        self._return[:], self._length[:] = 0, 0
        self._ended.clear()
        return self._group(obs)

    def step(self, action: Tensor) -> Step:
        """`action`: (N, dim) float, or (N,) int64 where discrete. An end by both counts as termination."""
        raw, reward, terminated, truncated, info = self.env.step(self._actions.to_gymnasium(action))
        ended = terminated | truncated
        self._count(reward, ended)
        obs = final = self._group(raw)
        if ended.any():
            if self._resets_itself:
                last = np.array(raw)
                for i in np.flatnonzero(ended):
                    last[i] = info["final_obs"][i]
                final = self._group(last)
            else:
                obs = self._group(self.env.reset(options={"reset_mask": ended})[0])
        return Step(
            obs,
            torch.as_tensor(reward, dtype=torch.float32),
            torch.from_numpy(terminated.copy()),
            torch.from_numpy(truncated & ~terminated),
            final,
            {},
        )

    def _group(self, obs: np.ndarray) -> Obs:
        """A copy, because some environments write into the same array at each step."""
        spec = self.obs_spec["policy"]
        return {"policy": torch.tensor(obs, dtype=spec.dtype).reshape(self.num_envs, *spec.shape)}

    def _count(self, reward: np.ndarray, ended: np.ndarray) -> None:
        self._return += reward
        self._length += 1
        self._ended += zip(self._return[ended].tolist(), self._length[ended].tolist(), strict=True)
        self._return[ended], self._length[ended] = 0, 0

    def pop_log(self) -> dict[str, float]:
        """Mean return and length (steps) of episodes that ended since the last call; empty if none did."""
        if not self._ended:
            return {}
        returns, lengths = np.mean(self._ended, axis=0).tolist()
        self._ended.clear()
        return {"episode/return": returns, "episode/length": lengths}

    def state_dict(self) -> dict[str, Tensor]:
        """Always raises KoboshiError: Gymnasium has no way to save where an environment stands."""
        raise KoboshiError(
            f"the state of {self.env} cannot be saved, for Gymnasium has no way to do so; "
            "save the policy's state_dict instead, and start its environments afresh"
        )

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Always raises KoboshiError, see `state_dict`."""
        raise KoboshiError(f"the state of {self.env} cannot be loaded, for Gymnasium has no way to do so")

    def close(self) -> None:
        """Ends the environments (and their processes)."""
        self.env.close()


def _observation_spec(space: Space) -> ObsSpec:
    """A box of bytes as it is, any other as a vector."""
    from gymnasium.spaces import Box

    if not isinstance(space, Box):
        raise KoboshiError(f"observations must be a Box, not {space}; gymnasium.wrappers.FlattenObservation makes one")
    if space.dtype == np.uint8:
        return ObsSpec(tuple(space.shape), torch.uint8)
    return ObsSpec((int(np.prod(space.shape)),))


class _Actions:
    """Turns a policy's actions into those of a Gymnasium action space."""

    def __init__(self, space: Space, scale: bool) -> None:
        from gymnasium.spaces import Box, Discrete

        self._gymnasium, self._scale = space, scale
        if isinstance(space, Discrete):
            self.space = ActionSpace(int(space.n), discrete=True)
        elif isinstance(space, Box):
            if scale and not space.is_bounded():
                raise KoboshiError(f"scale_actions needs bounds, and {space} has none on some side")
            bounds = (np.full_like(space.low, -1), np.ones_like(space.high)) if scale else (space.low, space.high)
            low, high = (tuple(bound.flatten().tolist()) for bound in bounds)
            self.space = ActionSpace(int(np.prod(space.shape)), low=low, high=high)
        else:
            raise KoboshiError(f"actions must be Discrete or a Box, not {space}")

    def to_gymnasium(self, action: Tensor) -> np.ndarray:
        """(N, …) in the space's own shape, type and bounds."""
        space: Any = self._gymnasium
        values = action.detach().cpu().numpy()
        if self.space.discrete:
            return values + space.start
        values = values.reshape(-1, *space.shape)
        if self._scale:
            values = space.low + (values + 1) / 2 * (space.high - space.low)
        return values.clip(space.low, space.high).astype(space.dtype)
