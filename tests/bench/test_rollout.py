"""Frozen scenarios on real physics: the same for everybody, and streamed as in the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from koboshi import robots
from koboshi.bench.detection import delays, switch_delays
from koboshi.bench.rollout import Recording, rollout, scenario_cfg
from koboshi.envs import Env
from koboshi.envs.cfg import BodyCfg, EventTerm, SceneCfg, TerminationTerm
from koboshi.envs.scene import visual_scene
from koboshi.errors import KoboshiError
from koboshi.faults import Fault, Scenario, Scenarios
from koboshi.specialists.assignment import assign
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter, OracleRouter
from koboshi.specialists.storage import StoredController
from koboshi.stages.evaluate import healthy_alone
from koboshi.stages.folders import task_of
from koboshi.tasks import TaskCfg, make_task
from koboshi.terrain import PlaneCfg

SCENARIOS = Scenarios(
    "unitree_h1",
    5,
    (
        Scenario((Fault("left_knee", onset_s=0.1),), (0.7, 0.0, 0.0), 0.1),
        Scenario((Fault("torso", severity=0.5, onset_s=0.2), Fault("left_elbow", onset_s=0.26)), (0.3, 0.0, 0.5), 0.2),
        Scenario((), (0.0, 0.0, -0.5), 0.0),
    ),
)
STEPS = 10 + 15
H1 = robots.find("unitree_h1")
KNEE, TORSO, ELBOW = (H1.joint_id(name) for name in ("left_knee", "torso", "left_elbow"))


class Still:
    """A policy that asks for the default pose."""

    def initial_state(self, num_envs: int, device: torch.device) -> tuple[()]:
        return ()

    def act(self, obs: dict[str, Tensor], state: tuple[()], reset: Tensor) -> tuple[Tensor, tuple[()]]:
        return torch.zeros(len(reset), len(H1.joint_names)), state


def still(router: Any) -> Controller:
    return Controller(Still(), None, router)


@pytest.fixture(scope="module")
def cfg() -> Any:
    return make_task("h1-dead-joint").env


def test_nothing_but_the_scenario_happens(cfg: Any) -> None:
    world = {"once": EventTerm(lambda env, mask: None, mode="startup")}
    shoves = cfg.events | world | {"shove": EventTerm(lambda env, mask: None, mode="interval"), "gone": None}
    found = scenario_cfg(replace(cfg, events=shoves, random_initial_length=True), SCENARIOS)
    env = Env(found)
    env.reset(0)
    assert not env.episode_step.any(), "an episode that began in its midst would break its joint at once"
    assert found.num_envs == 3 and found.curriculum == {} and found.faults == SCENARIOS
    assert found.events == {n: term for n, term in cfg.events.items() if term.mode == "reset"} | world
    assert list(found.terminations) == [n for n, term in cfg.terminations.items() if not term.time_out]
    assert found.observations == cfg.observations
    assert SCENARIOS.steps(cfg.step_dt, 0.3) == STEPS


def test_a_recording_tells_what_happened(cfg: Any) -> None:
    seen: list[int] = []
    router = HealthyRouter(len(H1.joint_names))
    found = rollout(cfg, still(router), SCENARIOS, 0.3, detail=True, film=(0, 2), report=seen.append)
    assert seen == list(range(1, STEPS + 1))
    assert found.onset.tolist() == [5, 10, 0]
    assert found.qpos.shape == (STEPS, 2, 26) and found.filmed == (0, 2)
    assert found.contact.shape == (STEPS, 3, len(H1.feet))
    assert torch.equal(found.command, torch.tensor([e.command for e in SCENARIOS.episodes]).expand(STEPS, 3, 3))
    assert found.target.isnan().all() and found.pose.shape == (STEPS, 3, 3)
    assert found.member.dtype == torch.int16 and bool((found.member == -1).all())
    assert found.alarm is not None and not found.alarm.any()
    assert found.probability is not None
    assert bool((found.end == STEPS).all()) and found.decision_s is not None and found.decision_s > 0
    brief = rollout(cfg, still(router), SCENARIOS, 0.3)
    assert brief.alarm is None and brief.probability is None and brief.qpos.shape == (STEPS, 0, 26)
    assert torch.equal(brief.velocity, found.velocity)


def test_a_heading_is_held_from_where_a_robot_looks_first(cfg: Any) -> None:
    """The yaw rate asked for follows the turn that is left, step by step; without a heading it is the scenario's."""
    first, second, third = SCENARIOS.episodes
    held = (replace(first, heading=0.4), second, replace(third, heading=-0.2))
    scenarios = replace(SCENARIOS, episodes=held)
    found = rollout(cfg, still(HealthyRouter(19)), scenarios, 0.3)
    env = Env(scenario_cfg(cfg, scenarios))
    env.reset(scenarios.seed)
    assert env.state.heading.abs().max() > 0.3, "they look in all directions"
    target = env.state.heading + torch.tensor([0.4, 0.0, -0.2])
    torch.testing.assert_close(found.target[:, [0, 2]], target[[0, 2]].expand(STEPS, 2))
    assert found.target[:, 1].isnan().all() and (found.command[:, 1, 2] == 0.5).all()
    assert found.command[0, [0, 2], 2].tolist() == pytest.approx([0.5 * 0.4, -0.5 * 0.2], abs=1e-6)
    left = torch.remainder(found.target - found.pose[..., 2] + math.pi, 2 * math.pi) - math.pi
    torch.testing.assert_close(found.command[1:, [0, 2], 2], 0.5 * left[:-1, [0, 2]], atol=1e-5, rtol=0)
    assert torch.equal(found.command[:, :, :2], SCENARIOS.commands()[:, :2].expand(STEPS, 3, 2))
    assert scenarios.hash != SCENARIOS.hash


def test_what_a_device_only_noted_is_asked_for_at_the_end(cfg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(env: Env) -> None:
        raise KoboshiError("contacts were lost")

    monkeypatch.setattr(Env, "settle", lost)
    with pytest.raises(KoboshiError, match="contacts were lost"):
        rollout(cfg, still(HealthyRouter(19)), SCENARIOS, 0.1)


def test_what_is_filmed_is_the_scene_that_was_stepped(cfg: Any) -> None:
    ball, step = BodyCfg("sphere", (0.1,), (1.0, 0.0, 0.4), motion="free"), BodyCfg("box", (0.2, 0.2, 0.05))
    bodies = {"ball": ball, "step": step}
    there = replace(cfg, scene=SceneCfg(PlaneCfg(height=2.0, slope=0.1), bodies))
    found = rollout(there, still(HealthyRouter(19)), SCENARIOS, 0.1, film=(0, 2))
    drawn, stepped = visual_scene(there.scene, H1).compile(), Env(replace(there, num_envs=1)).model
    assert found.qpos.shape[1:] == (2, drawn.nq) and drawn.nq == stepped.nq
    joints = [[model.joint(i).name for i in range(model.njnt)] for model in (drawn, stepped)]
    assert joints[0] == joints[1]
    height = found.qpos[:, 1, drawn.jnt_qposadr[drawn.body("ball").jntadr[0]] + 2].double()
    assert height[0] == pytest.approx(2.4, abs=0.02) and height[-1] < height[0] - 0.1, "it falls"


def _due(env: Env) -> Tensor:
    return env.episode_step >= 3 + torch.arange(env.num_envs)


def test_an_episode_ends_with_its_first_fall(cfg: Any) -> None:
    ends = replace(cfg, terminations={"due": TerminationTerm(_due)})
    found = rollout(ends, still(HealthyRouter(len(H1.joint_names))), SCENARIOS, 0.3)
    assert found.end.tolist() == [2, 3, 4]


def test_a_task_without_faults_is_judged_too() -> None:
    walk = Scenarios("unitree_h1", 5, SCENARIOS.episodes[2:])
    router = HealthyRouter(len(H1.joint_names))
    found = rollout(make_task("h1-velocity").env, still(router), walk, 0.2, detail=True)
    assert found.velocity.shape == (10, 1, 3)


def test_the_oracle_alarms_and_switches_a_control_period_after_the_onset(cfg: Any) -> None:
    table = assign(H1, "joint")
    for delay, ms in ((0.0, 20.0), (0.06, 80.0)):
        controller = still(OracleRouter(table, H1, cfg.step_dt, delay))
        found = rollout(cfg, controller, SCENARIOS, 0.3, detail=True)
        assert delays(found) == pytest.approx([ms] * 3)
        # The torso's member stays in charge when the elbow breaks too.
        assert switch_delays(found, table)[:2] == pytest.approx([ms] * 2)


# A trained controller


@pytest.fixture(scope="module")
def task(pipeline: Path) -> TaskCfg:
    return task_of(pipeline / "controller.safetensors")


@pytest.fixture(scope="module")
def stored(pipeline: Path, task: TaskCfg) -> StoredController:
    return StoredController(pipeline / "controller.safetensors", Env(scenario_cfg(task.env, SCENARIOS)))


@pytest.fixture(scope="module")
def run(task: TaskCfg) -> Callable[..., Recording]:
    return lambda controller, **options: rollout(task.env, controller, SCENARIOS, 0.3, **options)


def test_everybody_meets_the_same(stored: StoredController, run: Callable[..., Recording]) -> None:
    first, again = run(stored.learned()), run(stored.learned())
    for name in ("velocity", "contact", "member", "end"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    healthy = run(healthy_alone(stored.healthy, len(H1.joint_names)))
    # Before anybody can know of a fault, only a false alarm can make a difference.
    assert bool((first.member[:6] == -1).all())
    assert torch.equal(healthy.velocity[:6], first.velocity[:6])


def test_streamed_one_robot_at_a_time_it_acts_as_in_the_batch(stored: StoredController, task: TaskCfg) -> None:
    controller = stored.learned()
    # Alarms early and often, so that specialists act too.
    router: Any = controller.router
    router.alarm = replace(stored.alarm, threshold=0.1, release_threshold=0.05, persistence=1)
    env = Env(scenario_cfg(task.env, SCENARIOS))
    n = env.num_envs
    obs, state, reset = env.reset(0), controller.initial_state(n), torch.ones(n, dtype=torch.bool)
    rows: list[tuple[dict[str, Tensor], Tensor, Tensor, Tensor]] = []
    for _ in range(STEPS):
        obs = {k: v.clone() for k, v in obs.items()}
        decision, state = controller.act(obs, reset, state)
        rows.append((obs, reset.clone(), decision.action, decision.route.member))
        step = env.step(decision.action)
        obs, reset = step.obs, step.terminated
    for i in range(n):
        state = controller.initial_state(1)
        for obs, reset, action, member in rows:
            alone = {group: x[i : i + 1] for group, x in obs.items()}
            decision, state = controller.act(alone, reset[i : i + 1], state)
            assert decision.route.member.item() == member[i]
            assert torch.allclose(decision.action[0], action[i], atol=1e-5)
    assert any(bool((member >= 0).any()) for _, _, _, member in rows)
