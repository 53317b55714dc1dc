"""Seeds and saved states: the same numbers again, to the last bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import CurriculumTerm, EventTerm
from koboshi.envs.terms import curriculum, events
from koboshi.faults import KINDS, FaultSchedule
from koboshi.tasks.h1_walk import env_cfg
from koboshi.vec_env import Step

N, J = 6, 19


def eventful() -> EnvCfg:
    """Short episodes with every kind of fault, delays, histories, pushes and a curriculum."""
    cfg = env_cfg()
    schedule = FaultSchedule(kinds=KINDS, num_joints=(1, 4), severity=(0.2, 1.0), onset_s=(0.0, 0.3))
    policy = dict(cfg.observations["policy"].terms)
    policy["joint_pos"] = replace(policy["joint_pos"], delay=(0, 3), history=2)
    return replace(
        cfg,
        num_envs=N,
        episode_length_s=0.5,
        observations=cfg.observations | {"policy": replace(cfg.observations["policy"], terms=policy)},
        events=cfg.events
        | {
            "change_joint_torque": EventTerm(events.change_joint_torque, params={"schedule": schedule}),
            "push": EventTerm(events.push, mode="interval", interval_s=(0.06, 0.2)),
        },
        curriculum={"commands": CurriculumTerm(curriculum.widen_commands, {"steps": 60})},
        command=replace(cfg.command, resampling_time_s=(0.1, 0.4)),
    )


def run(env: Env, steps: int, seed: int) -> list[Step]:
    generator = torch.Generator().manual_seed(seed)
    return [env.step(torch.randn(N, J, generator=generator)) for _ in range(steps)]


def assert_same(a: list[Step], b: list[Step]) -> None:
    for first, second in zip(a, b, strict=True):
        for one, other in ((first.obs, second.obs), (first.final_obs, second.final_obs)):
            assert all(torch.equal(one[group], other[group]) for group in one)
        for name in ("reward", "terminated", "truncated"):
            assert torch.equal(getattr(first, name), getattr(second, name))


def test_a_reset_is_a_function_of_the_seed_alone() -> None:
    env, fresh = Env(eventful()), Env(eventful())
    env.reset(1)
    run(env, 40, seed=0)
    assert env.faults.active.any(), "nothing to undo: the test says little"
    again, first = env.reset(7), fresh.reset(7)
    assert all(torch.equal(again[group], first[group]) for group in first)
    assert_same(run(env, 40, seed=1), run(fresh, 40, seed=1))
    assert env.pop_log() == fresh.pop_log()
    assert not torch.equal(env.reset(8)["critic"], first["critic"])


def test_a_saved_state_goes_on_with_the_same_numbers() -> None:
    env, other = Env(eventful()), Env(eventful())
    env.reset(2)
    run(env, 33, seed=0)
    assert env.faults.severity.count_nonzero() > 2 and env.total_steps == 33
    saved = env.state_dict()
    kept = {name: value.clone() for name, value in saved.items()}
    expected = run(env, 40, seed=1)
    assert sum(int((s.terminated | s.truncated).sum()) for s in expected) >= N
    assert all(torch.equal(saved[name], kept[name]) for name in kept), "a saved state is a copy"
    other.reset(99)
    run(other, 5, seed=5)
    other.load_state_dict(saved)
    assert_same(expected, run(other, 40, seed=1))
    after, after_other = env.state_dict(), other.state_dict()
    assert all(torch.equal(after[name], after_other[name]) for name in after)
    assert all(torch.equal(saved[name], kept[name]) for name in kept), "loading does not hold on to it"


def test_curriculum_starts_small_and_is_logged() -> None:
    env = Env(eventful())
    assert env.reset(0)["critic"][:, 9].max() <= 0.5
    assert env.command.scale == 0.5
    assert env.pop_log()["curriculum/commands"] == 0.5
    run(env, 62, seed=0)
    assert env.command.scale > 0.7
    env.reset(0)
    assert env.command.scale == 0.5


def test_pushes_come_in_their_interval() -> None:
    cfg = replace(eventful(), terminations={}, curriculum={})
    pushed: list[Tensor] = []

    def note(env: Env, ids: Tensor) -> None:
        pushed.append(torch.zeros(N, dtype=torch.int64).index_fill(0, ids, env.total_steps))

    term = EventTerm(note, mode="interval", interval_s=(0.1, 0.2))
    env = Env(replace(cfg, events={"note": term}))
    env.reset(0)
    run(env, 60, seed=0)
    for row in torch.stack(pushed).T:
        times = torch.cat((torch.zeros(1, dtype=torch.int64), row[row > 0]))
        assert times.diff().min() >= 5 and times.diff().max() <= 11 and len(times) > 5


def test_the_warp_backend_walks_the_same() -> None:
    """Float32 on Warp's CPU device: same random numbers, nearly the same physics, its own exact resume."""
    cfg = replace(eventful(), num_envs=2, events=env_cfg().events, curriculum={})
    cpu, warp = Env(cfg), Env(replace(cfg, sim=replace(cfg.sim, backend="warp")))
    first, second = cpu.reset(0), warp.reset(0)
    assert warp.qpos.dtype == torch.float32
    actions = 0.3 * torch.randn(16, 2, J, generator=torch.Generator().manual_seed(0))
    for t, action in enumerate(actions):
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
    for action in actions[6:]:
        again = warp.step(action)
    assert all(torch.equal(again.obs[group], step.obs[group]) for group in step.obs)


@pytest.mark.parametrize("backend", ["cpu", "warp"])
def test_values_of_the_last_step_are_not_live(backend: str) -> None:
    cfg = env_cfg()
    env = Env(replace(cfg, num_envs=2, sim=replace(cfg.sim, backend=backend)))
    env.reset(0)
    before = env.state.joint_vel
    kept = before.clone()
    env.qvel[:] = 3.0
    assert torch.equal(before, kept)
