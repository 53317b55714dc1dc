"""The Gymnasium adapter on an environment that can be followed by hand."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from koboshi.adapters.from_gymnasium import GymnasiumVecEnv
from koboshi.errors import KoboshiError
from koboshi.vec_env import ActionSpace, ObsSpec, VecEnv


class Counter(gymnasium.Env):
    """Observes [[start, steps]]; rewards 1; terminates after `fall` steps, is cut off after `limit`."""

    observation_space = spaces.Box(-100, 100, (1, 2))

    def __init__(self, fall: int, limit: int, action_space: spaces.Space) -> None:
        self.fall, self.limit, self.action_space = fall, limit, action_space
        self.received: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.start, self.steps = self.np_random.uniform(), 0
        return self._obs(), {}

    def _obs(self) -> np.ndarray:
        return np.array([[self.start, self.steps]], dtype=np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.received.append(action)
        self.steps += 1
        return self._obs(), 1.0, self.steps == self.fall, self.steps == self.limit, {}


BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))


def make(
    *ends: tuple[int, int],
    mode: AutoresetMode = AutoresetMode.SAME_STEP,
    action: spaces.Space = BOX,
    **options: bool,
) -> GymnasiumVecEnv:
    envs = [lambda end=end: Counter(*end, action) for end in ends]
    return GymnasiumVecEnv(SyncVectorEnv(envs, autoreset_mode=mode), **options)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_ends_of_episodes(mode: AutoresetMode) -> None:
    # One falls after 2 steps, one is cut off after 3, one goes on, one falls and is cut off at once after 3.
    env = make((2, 99), (99, 3), (99, 99), (3, 3), mode=mode)
    assert isinstance(env, VecEnv)
    assert env.obs_spec == {"policy": ObsSpec((2,))}
    assert env.action_space == ActionSpace(2, low=(-2.0, 0.0), high=(2.0, 10.0))
    assert make((2, 99), mode=mode, scale_actions=True).action_space == ActionSpace(2, low=(-1, -1), high=(1, 1))
    start = env.reset(seed=5)["policy"]
    assert start.shape == (4, 2) and start.dtype == torch.float32 and not start[:, 1].any()
    steps = [env.step(torch.zeros(4, 2)) for _ in range(3)]
    assert [s.terminated.tolist() for s in steps] == [[False] * 4, [True, False, False, False], [False] * 3 + [True]]
    assert [s.truncated.tolist() for s in steps] == [[False] * 4, [False] * 4, [False, True, False, False]]
    assert [s.obs["policy"][:, 1].tolist() for s in steps] == [[1, 1, 1, 1], [0, 2, 2, 2], [1, 0, 3, 0]]
    assert [s.final_obs["policy"][:, 1].tolist() for s in steps] == [[1, 1, 1, 1], [2, 2, 2, 2], [1, 3, 3, 3]]
    # The true last observation is of the episode that ended, the next one of another start.
    assert steps[1].final_obs["policy"][0, 0] == start[0, 0] != steps[1].obs["policy"][0, 0]
    assert steps[2].reward.tolist() == [1.0] * 4 and steps[2].reward.dtype == torch.float32
    # Episodes of 2, 3 and 3 steps ended.
    assert env.pop_log() == {"episode/return": pytest.approx(8 / 3), "episode/length": pytest.approx(8 / 3)}
    assert env.pop_log() == {}


def test_bytes_stay_pictures() -> None:
    env = make((9, 9), (9, 9))
    env.env.single_observation_space = spaces.Box(0, 255, (3, 4, 5), np.uint8)
    env = GymnasiumVecEnv(env.env)
    assert env.obs_spec == {"policy": ObsSpec((3, 4, 5), torch.uint8)}
    shown = np.arange(2 * 60, dtype=np.uint8).reshape(2, 3, 4, 5)
    group = env._group(shown)["policy"]
    assert group.dtype == torch.uint8 and torch.equal(group, torch.from_numpy(shown))


def test_the_seed_alone_decides_the_start() -> None:
    env = make((9, 9), (9, 9))
    first = env.reset(seed=1)["policy"]
    env.step(torch.zeros(2, 2))
    assert torch.equal(env.reset(seed=1)["policy"], first)
    assert not torch.equal(env.reset(seed=2)["policy"], first)
    assert first[0, 0] != first[1, 0]


@pytest.mark.parametrize(("scale", "expected"), [(False, [2.0, 0.5]), (True, [2.0, 7.5])])
def test_box_actions_are_clipped_and_scaled(scale: bool, expected: list[float]) -> None:
    env = make((9, 9), scale_actions=scale)
    env.reset(seed=0)
    env.step(torch.tensor([[3.0, 0.5]]))
    [received] = env.env.envs[0].received
    assert received.tolist() == expected and received.dtype == np.float32


def test_discrete_actions_begin_where_the_space_does() -> None:
    env = make((9, 9), (9, 9), action=spaces.Discrete(3, start=-1))
    assert env.action_space == ActionSpace(3, discrete=True)
    env.reset(seed=0)
    env.step(torch.tensor([0, 2]))
    assert [e.received for e in env.env.envs] == [[-1], [1]]


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(KoboshiError, match="NEXT_STEP; valid: SAME_STEP, DISABLED"):
        make((9, 9), mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(KoboshiError, match="Discrete or a Box, not MultiBinary"):
        make((9, 9), action=spaces.MultiBinary(2))
    with pytest.raises(KoboshiError, match="scale_actions needs bounds"):
        make((9, 9), action=spaces.Box(-np.inf, np.inf, (1,)), scale_actions=True)
    with pytest.raises(KoboshiError, match="observations must be a Box, not Discrete"):
        GymnasiumVecEnv.make("FrozenLake-v1", 1)
    with pytest.raises(KoboshiError, match="no environment 'CartPol-v1'.*CartPole"):
        GymnasiumVecEnv.make("CartPol-v1", 1)
    with pytest.raises(KoboshiError, match="num_envs must be at least 1, not 0"):
        GymnasiumVecEnv.make("CartPole-v1", 0)


def test_the_state_cannot_be_saved_and_it_says_so() -> None:
    env = GymnasiumVecEnv.make("CartPole-v1", 2)
    with pytest.raises(KoboshiError, match="CartPole-v1.* cannot be saved"):
        env.state_dict()
    with pytest.raises(KoboshiError, match="cannot be loaded"):
        env.load_state_dict({})
    env.close()
