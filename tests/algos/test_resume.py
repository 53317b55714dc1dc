"""A killed run goes on with the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_env import MIRROR, PointEnv, assert_same, small_cfg

from koboshi.algos.ppo import PPO
from koboshi.runs import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("discrete", [False, True])
def test_kill_and_resume_gives_the_same_numbers(discrete: bool, tmp_path: Path) -> None:
    def make() -> PPO:
        return PPO(PointEnv(12, discrete), small_cfg(), members=2, mirror=None if discrete else MIRROR)

    whole, killed = make(), make()
    logs = [whole.iterate() for _ in range(6)]
    for _ in range(3):
        killed.iterate()
    save_checkpoint(tmp_path / "state.safetensors", killed.state_dict(), {})

    torch.manual_seed(12345)  # whatever else the new process did
    resumed = make()
    resumed.load_state_dict(load_checkpoint(tmp_path / "state.safetensors")[0])
    assert [resumed.iterate() for _ in range(3)] == logs[3:]
    assert resumed.iteration == 6
    assert_same(resumed.state_dict(), whole.state_dict())


def test_a_state_does_not_move_with_its_learner() -> None:
    ppo = PPO(PointEnv(), small_cfg())
    ppo.iterate()
    state = ppo.state_dict()
    copy = {name: value.clone() for name, value in state.items()}
    ppo.iterate()
    assert_same(state, copy)
