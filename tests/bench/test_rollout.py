"""Frozen scenarios on real physics: the same for everybody, and streamed as in the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from koboshi.bench.detection import delays
from koboshi.bench.rollout import Recording, rollout, scenario_cfg
from koboshi.envs import Env
from koboshi.faults import Scenario, Scenarios
from koboshi.robots import UNITREE_H1
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter, OracleRouter
from koboshi.specialists.storage import StoredController
from koboshi.stages import play as playing
from koboshi.tasks import TaskCfg

SCENARIOS = Scenarios(
    "unitree_h1",
    5,
    (
        Scenario("left_knee", "torque_loss", 1.0, 0.1, (0.7, 0.0, 0.0)),
        Scenario("torso", "torque_loss", 0.5, 0.2, (0.3, 0.0, 0.5)),
        Scenario(None, "torque_loss", 0.0, 0.0, (0.0, 0.0, -0.5)),
    ),
)
STEPS = 10 + 15


@pytest.fixture(scope="module")
def task(pipeline: Path) -> TaskCfg:
    return playing.task_of(pipeline / "controller.safetensors")


@pytest.fixture(scope="module")
def stored(pipeline: Path, task: TaskCfg) -> StoredController:
    return StoredController(pipeline / "controller.safetensors", Env(scenario_cfg(task.env, SCENARIOS)))


@pytest.fixture(scope="module")
def run(task: TaskCfg) -> Callable[..., Recording]:
    return lambda controller, **options: rollout(task.env, controller, SCENARIOS, 0.3, **options)


def test_nothing_but_the_scenario_happens(task: TaskCfg) -> None:
    cfg = scenario_cfg(task.env, SCENARIOS)
    assert cfg.num_envs == 3 and cfg.curriculum == {}
    assert list(cfg.events) == ["reset_base", "reset_joints", "follow_scenarios"]
    assert list(cfg.terminations) == ["base_low", "bad_orientation"]
    assert cfg.observations == task.env.observations


def test_a_recording_tells_what_happened(stored: StoredController, run: Callable[..., Recording]) -> None:
    seen: list[int] = []
    healthy = Controller(stored.healthy, None, HealthyRouter())
    found = run(healthy, detail=True, film=(0, 2), report=seen.append)
    assert seen == list(range(1, STEPS + 1))
    assert found.onset.tolist() == [5, 10, 0]
    assert found.qpos.shape == (STEPS, 2, 26) and found.contact.shape == (STEPS, 3, 2)
    assert torch.equal(found.command, torch.tensor([e.command for e in SCENARIOS.episodes]))
    assert bool((found.joint == -1).all())
    assert found.severity is not None and found.probability is not None
    knee, torso = (found.severity[:, i, UNITREE_H1.joint_id(e)] for i, e in ((0, "left_knee"), (1, "torso")))
    # The fault acts in the step of its onset and shows in the observation after it.
    standing = found.end
    assert knee.nonzero()[0] == 6 and torso.nonzero()[0] == 11 and bool((standing[:2] > 11).all())
    assert knee[6] == 1.0 and torso[11] == 0.5
    assert found.decision_s > 0


def test_everybody_meets_the_same(stored: StoredController, run: Callable[..., Recording]) -> None:
    first, again = run(stored.learned()), run(stored.learned())
    for name in ("velocity", "contact", "joint", "end"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    healthy = run(Controller(stored.healthy, None, HealthyRouter()))
    # Before anybody can know of a fault, only a false alarm can make a difference.
    assert bool((first.joint[:6] == -1).all())
    assert torch.equal(healthy.velocity[:6], first.velocity[:6])


def test_the_oracle_switches_a_control_period_after_the_onset(
    stored: StoredController, run: Callable[..., Recording], task: TaskCfg
) -> None:
    for delay, ms in ((0.0, 20.0), (0.06, 80.0)):
        found = run(stored.routed_by(OracleRouter(task.env.step_dt, delay)))
        assert delays(found) == pytest.approx([ms, ms])


def test_streamed_one_robot_at_a_time_it_acts_as_in_the_batch(stored: StoredController, task: TaskCfg) -> None:
    controller = stored.learned()
    # Alarms early and often, so that specialists act too.
    controller.router.alarm = replace(stored.alarm, threshold=0.1, release_threshold=0.05, persistence=1)
    env = Env(scenario_cfg(task.env, SCENARIOS))
    n = env.num_envs
    obs, state, reset = env.reset(0), controller.initial_state(n), torch.ones(n, dtype=torch.bool)
    rows: list[tuple[dict[str, Tensor], Tensor, Tensor, Tensor]] = []
    for _ in range(STEPS):
        decision, state = controller.act(obs, reset, state)
        rows.append((obs, reset, decision.action, decision.route.joint))
        step = env.step(decision.action)
        obs, reset = {k: v.clone() for k, v in step.obs.items()}, step.terminated
    for i in range(n):
        state = controller.initial_state(1)
        for obs, reset, action, joint in rows:
            alone = {group: x[i : i + 1] for group, x in obs.items()}
            decision, state = controller.act(alone, reset[i : i + 1], state)
            assert decision.route.joint.item() == joint[i]
            assert torch.allclose(decision.action[0], action[i], atol=1e-5)
    assert any(bool((joint >= 0).any()) for _, _, _, joint in rows)
