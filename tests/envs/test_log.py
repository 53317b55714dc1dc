"""The log of ended episodes: every episode weighs alike, whenever it ended."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import worlds

from koboshi.envs import Env
from koboshi.envs.log import EpisodeLog, Guard
from koboshi.errors import KoboshiError

CPU = torch.device("cpu")


def test_sums_and_counts() -> None:
    """3 falls in separate steps and 17 simultaneous time-outs are 3 falls in 20 episodes."""
    log = EpisodeLog(CPU)
    for row in range(3):
        done = torch.arange(20) == row
        log.add(done, {"falls": done.float(), "length": torch.full((20,), 5.0)})
    done = torch.arange(20) >= 3
    log.add(done, {"falls": torch.zeros(20), "length": torch.full((20,), 15.0)})
    found = log.pop()
    assert found["falls"] == pytest.approx(0.15)
    assert found["length"] == pytest.approx((3 * 5 + 17 * 15) / 20)
    assert log.pop() == {}


def test_only_rows_that_ended_count() -> None:
    log = EpisodeLog(CPU)
    log.add(torch.tensor([True, False]), {"x": torch.tensor([2.0, 100.0])})
    assert log.pop() == {"x": 2.0}
    log.add(torch.zeros(2, dtype=torch.bool), {"x": torch.ones(2)})
    assert log.pop() == {}, "nothing where nothing ended"


def test_notes_are_the_latest() -> None:
    log = EpisodeLog(CPU)
    log.note("curriculum/a", 0.25)
    log.note("curriculum/a", 0.5)
    assert log.pop() == {"curriculum/a": 0.5}
    assert log.pop() == {}


def test_an_environments_log_by_hand() -> None:
    """3 of 20 fall one after the other, 17 are cut off together; lengths and rewards are means over the 20."""
    env = Env(worlds.h1(num_envs=20, episode_length_s=0.4, events={}))
    env.reset(0)
    env.pop_log()
    earned, lengths, falls = 0.0, 0.0, 0
    for t in range(1, 21):
        if t in (4, 7, 11):
            env.qpos[t, 2] = 0.3
        sums = env.rewards.sums[0].clone()
        step = env.step(worlds.zeros(env))
        fallen = step.terminated.nonzero().flatten().tolist()
        assert fallen == ([t] if t in (4, 7, 11) else [])
        assert step.truncated.sum() == (17 if t == 20 else 0)
        for row in (step.terminated | step.truncated).nonzero().flatten().tolist():
            falls += int(step.terminated[row])
            lengths += t * 0.02
            last = step.reward[row] + (200 * 0.02 if step.terminated[row] else 0)
            earned += (sums[row] + last).item()
    log = env.pop_log()
    assert falls == 3 and log["episode/falls"] == pytest.approx(0.15)
    assert log["episode/length_s"] == pytest.approx(lengths / 20)
    assert log["reward/track_lin_vel_xy"] == pytest.approx(earned / 0.4 / 20, rel=1e-4)
    assert log["reward/termination"] == pytest.approx(-200 * 0.02 * 3 / 20 / 0.4, rel=1e-5)
    assert log["episode/nan"] == 0
    assert env.pop_log() == {"episode/nan": 0.0}, "nothing logged where nothing ended"


def test_a_reset_forgets_the_log() -> None:
    env = Env(replace(worlds.h1(), episode_length_s=0.04))
    env.reset(0)
    worlds.random_steps(env, 3)
    env.reset(0)
    assert env.pop_log() == {"episode/nan": 0.0}


def test_the_guard_names_what_is_not_finite() -> None:
    guard = Guard()
    guard.check("reward", torch.ones(3), lambda: "never asked")
    with pytest.raises(KoboshiError, match="reward 'speed' is not finite"):
        guard.check("reward", torch.tensor([1.0, float("inf")]), lambda: "speed")
    guard.settle()
