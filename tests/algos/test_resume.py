"""A killed run goes on with the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_env import MIRROR, PointEnv, assert_resumes, assert_same, small_cfg

from koboshi.algos.ppo import PPO


@pytest.mark.parametrize("discrete", [False, True])
def test_kill_and_resume_gives_the_same_numbers(discrete: bool, tmp_path: Path) -> None:
    def make() -> PPO:
        return PPO(PointEnv(12, discrete), small_cfg(), members=2, mirror=None if discrete else MIRROR)

    assert_resumes(make, tmp_path)


def test_a_state_does_not_move_with_its_learner() -> None:
    ppo = PPO(PointEnv(), small_cfg())
    ppo.iterate()
    state = ppo.state_dict()
    copy = {name: value.clone() for name, value in state.items()}
    ppo.iterate()
    assert_same(state, copy)
