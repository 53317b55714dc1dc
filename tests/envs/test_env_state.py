"""Seeds and saved states: the same numbers again, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import worlds

from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import CurriculumTerm, EventTerm, HeadingCfg, ObsTerm, VelocityCommandCfg
from koboshi.envs.terms import curriculum, events, observations
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, FaultsCfg, FaultSchedule

N = 8


def eventful(**changes: Any) -> EnvCfg:
    """Short episodes with every kind of fault, delays, histories, headings, pushes, a curriculum and randomisations."""
    cfg = worlds.go2(num_envs=N, episode_length_s=0.5)
    faults = FaultsCfg(kinds=KINDS, count=(1, 4), severity=(0.2, 1.0), duration_s=(0.1, 0.4), pause_s=(0.02, 0.1))
    policy = dict(cfg.observations["policy"].terms)
    policy["joint_pos"] = ObsTerm(observations.joint_pos, noise=0.01, delay=(0, 3), history=2)
    random = {
        "friction": EventTerm(events.randomise_friction, "startup"),
        "mass": EventTerm(events.randomise_mass),
        "com": EventTerm(events.randomise_com, "startup"),
        "gains": EventTerm(events.randomise_gains),
        "strength": EventTerm(events.randomise_strength, "interval", {}, (0.1, 0.3)),
        "armature": EventTerm(events.randomise_armature),
        "dry": EventTerm(events.randomise_joint_friction),
        "bias": EventTerm(events.randomise_encoder_bias),
        "push": EventTerm(events.push, "interval", {"velocity": 0.5}, (0.06, 0.2)),
    }
    return replace(
        cfg,
        actions=replace(worlds.positions(0.25), delay=(0, 6)),
        observations=cfg.observations | {"policy": replace(cfg.observations["policy"], terms=policy)},
        events=cfg.events | random,
        curriculum={
            "commands": CurriculumTerm(curriculum.widen_commands, {"steps": 60}),
            "faults": CurriculumTerm(curriculum.grow_faults, {"steps": 60}),
            "events": CurriculumTerm(curriculum.grow_events, {"steps": 60}),
        },
        command=VelocityCommandCfg(
            (-1, 1), (-0.5, 0.5), resampling_time_s=(0.1, 0.4), heading=HeadingCfg(fraction=0.6)
        ),
        faults=FaultSchedule(faults, onset_s=(0.0, 0.3)),
        **changes,
    )


def test_a_reset_is_a_function_of_the_seed_alone() -> None:
    env, fresh = Env(eventful()), Env(eventful())
    env.reset(1)
    worlds.random_steps(env, 40)
    assert env.faults.active.any() and env.encoder_bias.any(), "nothing to undo: the test says little"
    again, first = env.reset(7), fresh.reset(7)
    assert all(torch.equal(again[group], first[group]) for group in first)
    worlds.assert_same_steps(worlds.random_steps(env, 40), worlds.random_steps(fresh, 40))
    assert env.pop_log() == fresh.pop_log()
    assert not torch.equal(env.reset(8)["critic"], first["critic"])


@pytest.mark.parametrize("name", ["strength", "armature", "bias"])
def test_a_reset_undoes_what_intervals_randomised(name: str) -> None:
    """A field that only interval events touch is nominal again at a reset, constants that follow from it too."""
    cfg = eventful()
    term = replace(cfg.events[name], mode="interval", interval_s=(0.1, 0.1))
    cfg = replace(cfg, events={"reset_base": cfg.events["reset_base"], name: term}, faults=None, curriculum={})
    env, fresh = Env(cfg), Env(cfg)
    env.reset(1)
    worlds.random_steps(env, 20)
    env.reset(7), fresh.reset(7)
    for field, value in fresh.fields.state_dict().items():
        assert torch.equal(env.fields.live(field), value), field
    assert torch.equal(env.encoder_bias, torch.zeros(N, 12))
    worlds.assert_same_steps(worlds.random_steps(env, 30), worlds.random_steps(fresh, 30))


def test_a_saved_state_resumes_with_the_same_numbers() -> None:
    """Randomised fields, faults in force and late targets included."""
    env, other = Env(eventful()), Env(eventful())
    env.reset(9)
    worlds.random_steps(env, 33)
    assert env.faults.severity.count_nonzero() > 2 and env.total_steps == 33
    saved = env.state_dict()
    copy = {name: value.clone() for name, value in saved.items()}
    expected = worlds.random_steps(env, 50, seed=1)
    assert sum(int((s.terminated | s.truncated).sum()) for s in expected) >= N
    assert all(torch.equal(saved[name], copy[name]) for name in copy), "a saved state is a copy"
    other.reset(99)
    worlds.random_steps(other, 5, seed=5)
    other.load_state_dict(saved)
    for field in env.fields.state_dict():
        assert (other.fields.live(field) != other.fields.nominal(field)).any(), f"{field} is nominal"
    worlds.assert_same_steps(expected, worlds.random_steps(other, 50, seed=1))
    after, after_other = env.state_dict(), other.state_dict()
    assert set(after) == set(after_other)
    assert all(torch.equal(after[name], after_other[name]) for name in after)
    assert all(torch.equal(saved[name], copy[name]) for name in copy), "loading does not hold on to it"
    for field in env.fields.state_dict():
        assert torch.equal(env.fields.live(field), other.fields.live(field)), field


def test_a_state_resumes_in_mid_delay() -> None:
    """Wheels and motors too, with targets on their way."""
    cfg = worlds.rover(num_envs=N, actions=replace(worlds.ROVER_ACTIONS, delay=(2, 9)))
    env, other = Env(cfg), Env(cfg)
    env.reset(0), other.reset(1)
    worlds.random_steps(env, 5)
    saved = env.state_dict()
    assert saved["fields.actuator_delay"].unique().numel() > 2
    expected = worlds.random_steps(env, 10, seed=1)
    other.load_state_dict(saved)
    worlds.assert_same_steps(expected, worlds.random_steps(other, 10, seed=1))


def test_the_curriculum_starts_small_and_is_logged() -> None:
    env = Env(replace(eventful(), command=VelocityCommandCfg(resampling_time_s=(0.1, 0.4))))
    command = env.obs_spec["critic"].place("command")
    assert env.reset(0)["critic"][:, command].abs().max() <= 0.5
    assert env.command.scale == 0.5
    assert env.pop_log()["curriculum/commands"] == 0.5
    worlds.random_steps(env, 62)
    assert 0.7 < env.pop_log()["curriculum/commands"] <= 1.0
    env.reset(0)
    assert env.command.scale == 0.5


def test_faults_grow_with_a_curriculum() -> None:
    """Severities from 0.2 to 1: after a third of the steps up to 0.2 + (0.25 + 0.75 / 3) · 0.8 = 0.6."""
    grow = {"faults": CurriculumTerm(curriculum.grow_faults, {"start": 0.25, "steps": 60})}
    env = Env(replace(eventful(), curriculum=grow))
    env.reset(0)
    first = env.faults.level.clone()
    assert first.min() >= 0.2 and 0.3 < first.max() <= 0.4
    everyone = torch.ones(N, dtype=torch.bool)
    for steps, most in ((20, 0.6), (60, 1.0), (100, 1.0)):
        env.total_steps = steps
        env._advance_curriculum(everyone)
        env._restart(everyone)
        assert 0.8 * most < env.faults.level.max() <= most + 1e-6
    point = FaultSchedule(FaultsCfg(severity=(0.5, 0.5)))
    steep = {"faults": CurriculumTerm(curriculum.grow_faults, {"start": 1.0})}
    for wrong, message in (
        ({"faults": None, "curriculum": grow}, "grow_faults has no effect: no schedule draws"),
        ({"faults": point, "curriculum": grow}, "grow_faults has no effect: all severities are 0.5"),
        ({"curriculum": steep}, "grows from 0 ≤ start < 1 over at least one step, not 1.0 over 2000"),
    ):
        with pytest.raises(KoboshiError, match=message):
            Env(replace(eventful(), **wrong)).reset(0)


def test_events_grow_with_a_curriculum() -> None:
    """After half of the steps half of the robots have another friction, always the same ones; pushes grow likewise."""
    grow = {"events": CurriculumTerm(curriculum.grow_events, {"steps": 40})}
    often = EventTerm(events.push, "interval", {"velocity": 0.5}, (0.02, 0.02))
    strikes = {"friction": EventTerm(events.randomise_friction), "push": often}
    env = Env(worlds.clean(worlds.go2(num_envs=64, events=strikes, curriculum=grow)))
    env.reset(0)
    everyone = torch.ones(64, dtype=torch.bool)

    def struck() -> tuple[torch.Tensor, torch.Tensor]:
        env._advance_curriculum(everyone)
        env._restart(everyone)
        before = env.qvel[:, env.joints.base_lin_vel].clone()
        env.events.interval(torch.zeros(64, dtype=torch.bool))
        friction = env.fields.live("geom_friction")[:, 0, 0]
        pushed = (env.qvel[:, env.joints.base_lin_vel] != before).any(1)
        return friction != env.fields.nominal("geom_friction")[0, 0], pushed

    assert not any(each.any() for each in struck())
    env.total_steps = 20
    half, pushed = struck()
    assert 30 <= half.sum() <= 34 and torch.equal(half, pushed)
    assert all(12 <= half[side].sum() <= 20 for side in (slice(32), slice(32, 64))), "spread over neighbours"
    assert torch.equal(struck()[0], half)
    env.total_steps = 40
    assert all(each.all() for each in struck())
    env.reset(1)
    assert not struck()[0].any()
    without = Env(worlds.clean(worlds.go2(events=strikes)))
    without.events.share = 0.5
    without.reset(1)
    assert without.events.share == 1.0, "a reset of all forgets what a curriculum held back"
    once = {"once": EventTerm(events.randomise_friction, "startup"), "base": EventTerm(events.reset_base)}
    with pytest.raises(KoboshiError, match="grow_events has no effect: no active event makes worlds differ"):
        Env(worlds.clean(worlds.go2(events=once, curriculum=grow))).reset(0)


def test_the_first_episodes_begin_at_random_ages() -> None:
    cfg = worlds.go2(num_envs=64, random_initial_length=True, episode_length_s=1.0)
    env = Env(replace(cfg, terminations={"time_out": cfg.terminations["time_out"]}))
    env.reset(3)
    ages = env.episode_step.clone()
    assert ages.min() >= 0 and ages.max() < 50 and ages.unique().numel() > 25
    ended = torch.zeros(64, dtype=torch.int64)
    for t in range(1, 51):
        ended[env.step(worlds.zeros(env)).truncated] = t
    assert torch.equal(ended, 50 - ages), "time-outs do not come all at once"
    env.reset(3)
    assert torch.equal(env.episode_step, ages)
    assert not Env(worlds.go2()).cfg.random_initial_length


def test_the_warp_backend_walks_the_same() -> None:
    """Float32 on Warp's CPU device: same random numbers and delays, nearly the same physics, its own exact resume."""
    cfg = worlds.h1(
        num_envs=2, actions=worlds.positions(delay=(0, 6)), command=VelocityCommandCfg(resampling_time_s=(0.1, 0.4))
    )
    cpu, warp = Env(cfg), Env(replace(cfg, sim=replace(cfg.sim, backend="warp")))
    first, second = cpu.reset(0), warp.reset(0)
    assert warp.qpos.dtype == torch.float32
    drawn = 0.3 * torch.randn(16, 2, 19, generator=torch.Generator().manual_seed(0))
    for t, action in enumerate(drawn):
        for group, value in first.items():
            assert second[group].dtype == torch.float32
            if group != "detector":
                torch.testing.assert_close(second[group], value, atol=0.05, rtol=0.05, msg=group)
        if t == 6:
            torch.testing.assert_close(warp.state.joint_acc, cpu.state.joint_acc, atol=5.0, rtol=0.05)
            assert warp.state.joint_acc.abs().max() > 1
            saved = warp.state_dict()
        step, first = warp.step(action), cpu.step(action).obs
        second = step.obs
    warp.load_state_dict(saved)
    for action in drawn[6:]:
        again = warp.step(action)
    assert all(torch.equal(again.obs[group], step.obs[group]) for group in step.obs)


@pytest.mark.parametrize("backend", ["cpu", "warp"])
def test_values_of_the_last_step_are_not_live(backend: str) -> None:
    cfg = worlds.h1(num_envs=2)
    env = Env(replace(cfg, sim=replace(cfg.sim, backend=backend)))
    env.reset(0)
    before = env.state.joint_vel
    copy = before.clone()
    env.qvel[:] = 3.0
    assert torch.equal(before, copy)
