"""Faults act on the physics or the senses, are labelled to the step, and are undone by a reset."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from koboshi.envs import Env
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, FaultSchedule
from koboshi.faults.state import BRAKE_DAMPING, LOCK_SLACK, NEVER, SENSOR_BIAS
from koboshi.robots import UNITREE_H1
from koboshi.tasks.h1_walk import env_cfg

N, J = 4, 19
KNEE, ELBOW = UNITREE_H1.joint_id("left_knee"), UNITREE_H1.joint_id("right_elbow")


def make(kinds: tuple[str, ...] = KINDS) -> Env:
    """An environment without noise in which any of the kinds can be planned by hand; it never ends by itself."""
    cfg = env_cfg()
    event = EventTerm(events.change_joint_torque, params={"schedule": FaultSchedule(probability=0.0, kinds=kinds)})
    return Env(
        replace(
            cfg,
            num_envs=N,
            observations={name: replace(g, noise=False) for name, g in cfg.observations.items()},
            events=cfg.events | {"change_joint_torque": event},
            terminations={},
        )
    )


@pytest.fixture(scope="module")
def env() -> Env:
    return make()


@pytest.fixture(scope="module")
def twin() -> Env:
    return make()


def plan(env: Env, row: int, joint: int, kind: str, severity: float = 1.0, onset: int = 0) -> None:
    shape = (1, J)
    severities, onsets = torch.zeros(shape), torch.full(shape, NEVER)
    severities[0, joint], onsets[0, joint] = severity, onset
    kinds = torch.full(shape, KINDS.index(kind))
    env.faults.set_plan(torch.tensor([row]), kinds, severities, onsets)


def push_hard(size: float = 10.0) -> Tensor:
    return torch.full((N, J), size)


def test_torque_loss_scales_the_force_limit(env: Env) -> None:
    env.reset(0)
    plan(env, 0, KNEE, "torque_loss", 1.0)
    plan(env, 1, KNEE, "torque_loss", 0.75)
    plan(env, 2, ELBOW, "torque_loss", 0.5)
    force = env.backend.read("actuator_force")
    for size in (10.0, -10.0):
        step = env.step(push_hard(size))
        sign = size / 10
        assert force[:, KNEE].tolist() == pytest.approx([0, sign * 75, sign * 300, sign * 300])
        assert force[2, ELBOW].item() == pytest.approx(sign * 20)
        assert force[3, ELBOW].item() == pytest.approx(sign * 40)
        torch.testing.assert_close(step.obs["detector"][:, 69:], force.float())


def test_locked_joint_stays(env: Env, twin: Env) -> None:
    moved = []
    for which, broken in ((env, True), (twin, False)):
        which.reset(0)
        which.step(push_hard(0.0))
        if broken:
            plan(which, 1, ELBOW, "locked", onset=1)
        start = which.qpos[1, 7 + ELBOW].item()
        path = []
        for t in range(25):
            which.step(push_hard(2.0 if t < 12 else -2.0))
            path.append(which.qpos[1, 7 + ELBOW].item() - start)
        moved.append(torch.tensor(path).abs().max().item())
    locked, free = moved
    assert locked < LOCK_SLACK + 0.05, "MuJoCo's limits are soft"
    assert free > 0.5


def test_limited_range_shrinks_around_where_the_joint_is(env: Env) -> None:
    env.reset(0)
    plan(env, 1, ELBOW, "limited_range", 0.8)
    at = env.qpos[1, 7 + ELBOW].item()
    low, high = env.model.jnt_range[1 + ELBOW]
    env.step(push_hard(0.0))
    limits = env.backend.expand("jnt_range")
    expected = [at + 0.2 * (low - at), at + 0.2 * (high - at)]
    assert limits[1, 1 + ELBOW].tolist() == pytest.approx(expected)
    assert limits[0, 1 + ELBOW].tolist() == [low, high]
    for _ in range(25):
        env.step(push_hard(4.0))
    assert env.qpos[1, 7 + ELBOW] < expected[1] + 0.1
    assert env.qpos[0, 7 + ELBOW] > expected[1] + 0.3


def test_braking_slows(env: Env) -> None:
    env.reset(0)
    plan(env, 1, ELBOW, "braking", 0.5)
    start = env.qpos[:, 7 + ELBOW].clone()
    for _ in range(5):
        env.step(push_hard(1.0))
    damping = env.backend.expand("dof_damping")[:, 6 + ELBOW]
    assert damping.tolist() == pytest.approx([1, 1 + 0.5 * BRAKE_DAMPING, 1, 1])
    moved = (env.qpos[:, 7 + ELBOW] - start).abs()
    assert moved[1] < 0.6 * moved[[0, 2, 3]].min()


@pytest.mark.parametrize("kind", ["sensor_freeze", "sensor_bias"])
def test_sensor_faults_fool_the_senses_alone(env: Env, twin: Env, kind: str) -> None:
    env.reset(0), twin.reset(0)
    plan(env, 1, KNEE, kind, 0.5, onset=2)
    generator = torch.Generator().manual_seed(0)
    pos, vel = 12 + KNEE, 31 + KNEE
    before = None
    for t in range(8):
        action = torch.randn(N, J, generator=generator)
        obs, true = env.step(action).obs, twin.step(action).obs
        assert torch.equal(env.qpos, twin.qpos), "the physics do not know"
        assert torch.equal(obs["critic"], true["critic"])
        if t < 2:
            assert torch.equal(obs["policy"], true["policy"])
            before = obs["policy"][1, pos].item()
            continue
        wrong = (obs["policy"] != true["policy"]).nonzero().tolist()
        if kind == "sensor_freeze":
            assert wrong == [[1, pos], [1, vel]]
            assert obs["policy"][1, pos].item() == pytest.approx(before, abs=1e-6)
            assert obs["policy"][1, vel] == 0
        else:
            assert wrong == [[1, pos]]
            assert obs["policy"][1, pos].item() == pytest.approx(true["policy"][1, pos].item() + 0.5 * SENSOR_BIAS)
        assert torch.equal(obs["detector"][:, :69], obs["policy"])
        assert obs["fault"][1, KNEE] == 0.5


@pytest.mark.parametrize("onset", [0, 1, 3])
def test_labels_are_exact_to_the_step(env: Env, onset: int) -> None:
    obs = env.reset(0)
    plan(env, 2, KNEE, "torque_loss", 0.5, onset)
    plan(env, 3, KNEE, "torque_loss", 1.0, onset + 2)
    force = env.backend.read("actuator_force")
    for t in range(7):  # t control steps are done
        expected = torch.zeros(N, J)
        expected[2, KNEE], expected[3, KNEE] = 0.5 * (t > onset), 1.0 * (t > onset + 2)
        assert torch.equal(obs["fault"], expected)
        assert torch.equal(env.faults.active, expected.amax(1) > 0)
        obs = env.step(push_hard()).obs
        assert (force[2, KNEE] <= 150) == (t >= onset), "the force is gone in the step that follows the onset"
        assert (force[3, KNEE] == 0) == (t >= onset + 2)


def test_everything_is_undone(env: Env, twin: Env) -> None:
    env.reset(0), twin.reset(0)
    severity, onset = torch.zeros(2, J), torch.full((2, J), NEVER)
    severity[:, : len(KINDS)], onset[:, : len(KINDS)] = 0.7, 0
    env.faults.set_plan(torch.tensor([0, 1]), (torch.arange(J) % len(KINDS)).expand(2, J), severity, onset)
    for _ in range(3):
        env.step(push_hard(0.5)), twin.step(push_hard(0.5))
    fields = ("actuator_forcerange", "jnt_range", "dof_damping")
    assert all(not torch.equal(env.backend.expand(f), twin.backend.expand(f)) for f in fields)
    env.faults.clear(torch.tensor([1]))
    assert not env.faults.active[1] and env.faults.active[0]
    obs, clean = env.reset(0), twin.reset(0)
    assert all(torch.equal(env.backend.expand(f), twin.backend.expand(f)) for f in fields)
    assert (env.faults.onset == NEVER).all() and not env.faults.severity.any() and not env.faults.planned.any()
    for _ in range(3):
        assert all(torch.equal(obs[group], clean[group]) for group in obs)
        obs, clean = env.step(push_hard(0.5)).obs, twin.step(push_hard(0.5)).obs


def test_an_episodes_end_undoes_it_and_labels_the_last_step() -> None:
    cfg = env_cfg()
    env = Env(replace(cfg, num_envs=N, episode_length_s=0.1))
    env.reset(0)
    plan(env, 1, ELBOW, "torque_loss", 1.0, 2)
    for _ in range(5):
        step = env.step(torch.zeros(N, J))
    assert step.truncated.all()
    assert step.final_obs["fault"][1, ELBOW] == 1
    assert not step.obs["fault"].any()
    assert env.backend.expand("actuator_forcerange")[:, ELBOW].tolist() == [[-40, 40]] * N


def test_two_joints_break_on_their_own(env: Env) -> None:
    env.reset(0)
    severity, onset, kind = torch.zeros(1, J), torch.full((1, J), NEVER), torch.zeros(1, J, dtype=torch.int64)
    severity[0, [KNEE, ELBOW]], onset[0, KNEE], onset[0, ELBOW] = 1.0, 1, 3
    kind[0, ELBOW] = KINDS.index("braking")
    env.faults.set_plan(torch.tensor([0]), kind, severity, onset)
    broken = [env.step(torch.zeros(N, J)).obs["fault"][0].count_nonzero().item() for _ in range(5)]
    assert broken == [0, 1, 1, 2, 2]


def test_kinds_that_were_not_prepared_are_refused() -> None:
    env = make(("torque_loss",))
    env.reset(0)
    with pytest.raises(KoboshiError, match=r"\['locked'\] are planned, but prepared: \['torque_loss'\]"):
        plan(env, 0, KNEE, "locked")
