"""Velocity commands: ranges, standing, resampling, held commands and headings, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import worlds
from torch import Tensor

from koboshi.envs import Env
from koboshi.envs.cfg import HeadingCfg, VelocityCommandCfg
from koboshi.envs.commands import VelocityCommand
from koboshi.errors import KoboshiError

N, DT = 2000, 0.02


def make(num_envs: int = N, **changes: Any) -> VelocityCommand:
    cfg = VelocityCommandCfg(**{"standing_fraction": 0.0} | changes)
    cfg.validate()
    return VelocityCommand(cfg, num_envs, DT, torch.device("cpu"))


def everyone(n: int = N) -> Tensor:
    return torch.ones(n, dtype=torch.bool)


def test_ranges_are_filled_and_kept() -> None:
    command = make(lin_vel_x=(-0.5, 1.5), lin_vel_y=(0.2, 0.3), ang_vel_z=(-2.0, -1.0))
    command.resample(everyone(), torch.Generator().manual_seed(0))
    low, high = torch.tensor([-0.5, 0.2, -2.0]), torch.tensor([1.5, 0.3, -1.0])
    assert (command.value >= low).all() and (command.value <= high).all()
    share = (command.value - low) / (high - low)
    assert (share.amin(0) < 0.01).all() and (share.amax(0) > 0.99).all()
    torch.testing.assert_close(share.mean(0), torch.full((3,), 0.5), atol=0.03, rtol=0)
    assert torch.corrcoef(share.T).triu(1).abs().max() < 0.1, "drawn apart"


def test_a_share_stands_still() -> None:
    command = make(lin_vel_x=(0.5, 1.0), standing_fraction=0.25)
    command.resample(everyone(), torch.Generator().manual_seed(0))
    stands = (command.value == 0).all(1)
    assert stands.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (command.value[~stands, 0] >= 0.5).all()
    for fraction, share in ((0.0, 0.0), (1.0, 1.0)):
        command = make(lin_vel_x=(0.5, 1.0), standing_fraction=fraction)
        command.resample(everyone(), torch.Generator().manual_seed(0))
        assert (command.value == 0).all(1).float().mean() == share


def test_a_curriculum_scales_the_ranges() -> None:
    command = make(lin_vel_x=(-1.0, 2.0))
    command.scale = 0.25
    command.resample(everyone(), torch.Generator().manual_seed(0))
    assert command.value[:, 0].min() >= -0.25 and command.value[:, 0].max() <= 0.5
    assert command.value[:, 0].max() > 0.45


def test_only_the_rows_of_the_mask_change() -> None:
    command, generator = make(4, heading=HeadingCfg()), torch.Generator().manual_seed(0)
    command.resample(everyone(4), generator)
    before = {name: value.clone() for name, value in command.state_dict().items()}
    command.resample(torch.tensor([False, True, False, False]), generator)
    for name in ("value", "left", "heading"):
        same = (command.state_dict()[name] == before[name]).reshape(4, -1).all(1)
        assert same.tolist() == [True, name == "left", True, True], name  # every ten seconds: the same time left


def test_resampling_times() -> None:
    """Between 0.1 and 0.2 s: after 5 to 11 control steps."""
    command, generator = make(64, resampling_time_s=(0.1, 0.2)), torch.Generator().manual_seed(0)
    command.resample(everyone(64), generator)
    ages, gaps = torch.zeros(64, dtype=torch.int64), []
    for _ in range(200):
        before = command.value
        command.step(torch.zeros(64), generator, torch.zeros(64, dtype=torch.bool))
        ages += 1
        changed = (command.value != before).any(1)
        gaps += ages[changed].tolist()
        ages[changed] = 0
    assert min(gaps) in (5, 6) and max(gaps) in (10, 11) and len(set(gaps)) >= 5


def test_a_held_command_stays_until_the_next_reset() -> None:
    command, generator = make(4, resampling_time_s=(0.02, 0.04), heading=HeadingCfg()), torch.Generator().manual_seed(0)
    command.resample(everyone(4), generator)
    mask = torch.tensor([True, False, True, False])
    command.fix(mask, torch.tensor([[0.1, 0.2, 0.3]]).repeat(4, 1))
    for _ in range(20):
        before = command.value
        command.step(torch.full((4,), 1.0), generator, torch.zeros(4, dtype=torch.bool))
        torch.testing.assert_close(command.value[mask], torch.tensor([[0.1, 0.2, 0.3]]).repeat(2, 1))
    assert (command.value[~mask] != before[~mask]).any()
    command.resample(everyone(4), generator)
    assert (command.value[mask] != torch.tensor([0.1, 0.2, 0.3])).any(1).all()


@pytest.mark.parametrize(
    ("target", "heading", "rate"),
    [
        (1.0, 0.0, 0.5),  # 0.5 × 1
        (0.0, 1.0, -0.5),
        (3.0, -3.0, 0.5 * (6.0 - 2 * math.pi)),  # across ±π: turn right by 0.28
        (-3.0, 3.0, 0.5 * (2 * math.pi - 6.0)),
        (0.3, 0.3, 0.0),
        (2.5, 0.0, 1.0),  # clipped
        (-2.5, 0.0, -0.8),  # clipped on the other side
    ],
)
def test_headings_by_hand(target: float, heading: float, rate: float) -> None:
    command = make(3, ang_vel_z=(-0.8, 1.0), heading=HeadingCfg((target, target), stiffness=0.5))
    command.resample(everyone(3), torch.Generator().manual_seed(0))
    before = command.value.clone()
    command.track(torch.full((3,), heading))
    torch.testing.assert_close(command.value[:, 2], torch.full((3,), rate), atol=1e-6, rtol=1e-5)
    assert torch.equal(command.value[:, :2], before[:, :2])


def test_a_share_holds_a_heading_and_those_who_stand_hold_none() -> None:
    heading = HeadingCfg((1.0, 1.0), 0.5, fraction=0.5)
    command = make(ang_vel_z=(2.0, 3.0), lin_vel_x=(1.0, 2.0), standing_fraction=0.2, heading=heading)
    command.resample(everyone(), torch.Generator().manual_seed(0))
    command.track(torch.zeros(N))
    stands = command.value[:, 0] == 0
    assert not command.holds_heading[stands].any()
    assert (command.value[stands] == 0).all(), "who stands does not turn"
    assert command.holds_heading[~stands].float().mean().item() == pytest.approx(0.5, abs=0.04)
    torch.testing.assert_close(command.value[command.holds_heading, 2].unique(), torch.tensor([2.0]))  # 0.5, clipped
    others = command.value[~stands & ~command.holds_heading, 2]
    assert others.min() >= 2 and others.max() > 2.9


def test_headings_are_drawn_from_their_range() -> None:
    command = make(heading=HeadingCfg((-1.0, 2.0)))
    command.resample(everyone(), torch.Generator().manual_seed(0))
    assert -1 <= command.heading.min() < -0.98 and 1.98 < command.heading.max() <= 2


def test_a_robot_sees_the_turn_that_is_left() -> None:
    """In the environment: at the reset, and as it turns, the command in the observation follows the true heading."""
    cfg = worlds.go2()
    command = VelocityCommandCfg((0.5, 1.0), standing_fraction=0.0, heading=HeadingCfg(stiffness=0.7))
    env = Env(worlds.endless(worlds.clean(replace(cfg, command=command))))
    where = env.obs_spec["policy"].place("command")
    obs = env.reset(0)
    rates = []
    for _ in range(4):
        error = torch.remainder(env.command.heading - env.state.heading + math.pi, 2 * math.pi) - math.pi
        expected = (0.7 * error).clamp(-1.0, 1.0)
        torch.testing.assert_close(obs["policy"][:, where][:, 2], expected)
        rates.append(expected)
        env.qvel[:, 5] = -0.5
        obs = env.step(worlds.zeros(env)).obs
    assert (rates[0] != rates[-1]).any()


def test_a_new_command_is_judged_after_it_is_seen() -> None:
    cfg = worlds.h1()
    env = Env(worlds.clean(replace(cfg, command=replace(cfg.command, resampling_time_s=(0.1, 0.2)))))
    obs, changes = env.reset(0), 0
    for _ in range(20):
        asked = obs["policy"][:, 9:12].clone()
        env.rewards.sums[0] = 0
        obs = env.step(worlds.zeros(env)).obs
        error = (asked[:, :2] - env.state.lin_vel_yaw).square().sum(1)
        torch.testing.assert_close(env.rewards.sums[0], (-error / 0.25).exp() * 0.02, atol=1e-6, rtol=1e-5)
        changes += int((obs["policy"][:, 9:12] != asked).any(1).sum())
    assert changes >= 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lin_vel_x": (1.0, 0.0)}, "env.command.lin_vel_x: the lower bound 1.0 is above the upper bound 0.0"),
        ({"resampling_time_s": (2.0, 1.0)}, "env.command.resampling_time_s: the lower bound"),
        ({"standing_fraction": 1.5}, "standing_fraction is from 0 to 1, not 1.5"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        make(**changes)


@pytest.mark.parametrize("wrong", [HeadingCfg((1.0, 0.0)), HeadingCfg(stiffness=0.0), HeadingCfg(fraction=1.2)])
def test_headings_refused(wrong: HeadingCfg) -> None:
    with pytest.raises(KoboshiError, match="range ascends, stiffness is above 0, fraction from 0 to 1"):
        wrong.validate()
