"""Rivals: trained with the pipeline's budget, from its senses, under its faults, and judged beside it."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from koboshi import config
from koboshi.envs import Env
from koboshi.faults import FaultSchedule
from koboshi.policies.storage import load_single
from koboshi.specialists.routing import OracleRouter
from koboshi.stages import benchmark as stage
from koboshi.stages import rivals
from koboshi.stages.benchmark import Benchmark
from koboshi.stages.entrants import ENTRANTS, Seed, about, same_as, seed_of
from koboshi.stages.evaluate import loading_env
from koboshi.stages.folders import task_of
from koboshi.stages.parts import load_part
from koboshi.stages.rivals import Budget, Place, budget
from koboshi.tasks import TaskCfg, make_task

SHIPPED = files("koboshi") / "assets" / "h1_walk" / "controller.safetensors"
SMALL = [
    "env.num_envs=16", "agent.trainer.timesteps=16", "agent.trainer.rollout=8", "collect.num_envs=2", "collect.steps=4",
    "specialists.num_envs=27", "specialists.stages=[8,8]", "specialists.agent.trainer.rollout=8",
    "agent.epochs=1", "agent.minibatches=1", "specialists.agent.epochs=1",
    "specialists.onset_s=[0.0,0.02]", "specialists.switch_delay_s=[0.0,0.0]", "specialists.solved=0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def few_environments(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "place" in request.fixturenames:
        monkeypatch.setattr(rivals, "WIDE", 20)


@pytest.fixture(scope="module")
def task() -> TaskCfg:
    return config.override(make_task("h1-walk"), SMALL)


@pytest.fixture(scope="module")
def place(task: TaskCfg, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return seed_of(task, str(SHIPPED), 3, tmp_path_factory.mktemp("rivals")).place._replace(task=task)


def test_the_budget_counts_every_member_and_the_detectors_data(task: TaskCfg) -> None:
    assert budget(task) == Budget(16 * 16, 2 * 8 * 27, 2 * 2 * 4) and budget(task).total == 256 + 432 + 16
    assert budget(replace(task, specialists=None)).total == 256
    h1 = budget(make_task("h1-walk"))
    assert h1.total == 8000 * 512 + 19400 * 512 + 2 * 1800 * 1024


def test_banks_of_several_members_learn_from_more_environments_and_without_the_mirror() -> None:
    one = make_task("h1-walk")
    assert one.specialists is not None and one.specialists.agent.mirror_coef > 0 and one.specialists.num_envs == 512
    steps = 512 * sum(one.specialists.stages)
    for sharing, members in (("joint", 17), ("mirrored_pair", 9), ("limb", 5)):
        found = rivals.shared(one, sharing).specialists  # type: ignore[arg-type]
        assert found is not None and found.agent.mirror_coef == 0
        assert found.num_envs == 1728 // members * members
        assert steps - found.num_envs < found.num_envs * sum(found.stages) <= steps
    assert rivals.shared(one, "one") == one


def test_the_documentation_names_every_controller() -> None:
    text = (Path(__file__).parents[2] / "docs" / "method" / "benchmark.md").read_text()
    assert [name for name in ENTRANTS if name not in text] == []


def test_one_policy_takes_the_whole_budget_under_faults(place: Place) -> None:
    for name, history in (("B1", False), ("B1h", True)):
        ENTRANTS[name].train(place)  # type: ignore[misc]
        trained = task_of(place.apart.final(name))
        assert trained.agent.trainer.timesteps * trained.env.num_envs == 704 and trained.agent.trainer.seed == 3
        assert isinstance(trained.env.faults, FaultSchedule) and trained.env.faults.probability == rivals.BREAKS
        broken = trained.env.faults.faults
        assert (broken.whole, broken.dead) == (0.8, 0.4) and trained.env.episode_length_s == 10.0, "as the bank's"
        policy = load_single(place.apart.final(name), loading_env(place.task))[0]
        assert policy.actor.groups == ("detector",) and policy.actor.carries == history
        assert about(name, place)["steps"] == 704


def test_a_rival_of_the_same_settings_is_not_trained_again_for_another_detector(place: Place) -> None:
    other = place._replace(controller=Path("other.safetensors"), name="rivals-3-0")
    assert other.apart.final("B1") == place.apart.final("B1") and other.folder("B5limb") != place.folder("B5limb")
    for changed in ("agent.gamma=0.9", "specialists.whole=0.1", "collect.steps=8"):
        task = config.override(place.task, [changed])
        assert place._replace(task=task).apart.final("B1") != place.apart.final("B1"), changed
    task = config.override(place.task, ["detector.training.epochs=1"])
    assert place._replace(task=task).apart.final("B1") == place.apart.final("B1")


def test_a_student_learns_from_a_teacher_that_is_told_of_faults(place: Place) -> None:
    ENTRANTS["B2"].train(place)  # type: ignore[misc]
    env = loading_env(place.task)
    teacher, student = (load_single(place.apart.final(name), env)[0].actor for name in ("B2/teacher", "B2"))
    assert teacher.groups == ("detector", next(t for t in rivals.TRUTHS if t in env.obs_spec))
    assert student.groups == ("detector",) and student.carries
    steps = [task_of(place.apart.final(name)).agent.trainer.timesteps * 16 for name in ("B2/teacher", "B2")]
    assert steps == [480, 208], "70 and 30 per cent of 704, in whole steps of 16 robots"


def test_a_bank_shared_otherwise_serves_the_same_detector(place: Place, tmp_path: Path) -> None:
    ENTRANTS["B5limb"].train(place)  # type: ignore[misc]
    assert rivals.shared(place.task, "joint").specialists.num_envs == 17  # type: ignore[union-attr]
    seed = Seed(place.task, place)
    controller: Any = ENTRANTS["B5limb"].make(seed)
    assert [m.name for m in controller.bank.assignment.members] == list(seed.stored.robot.groups)
    assert controller.router.detector is seed.stored.detector
    assert about("B5limb", place)["parameters"] > about("B0", place)["parameters"] * 6


def test_an_oracle_of_pairs_learns_from_dead_pairs_alone(place: Place) -> None:
    task = rivals.dead_pairs(place.task)
    assert task.faults and task.specialists and place.task.specialists
    assert task.specialists.stages == place.task.specialists.stages, "as many steps"
    ENTRANTS["B3pairs"].train(place)  # type: ignore[misc]
    env = Env(replace(task.env, num_envs=64, faults=FaultSchedule(task.faults, onset_s=(0.0, 0.0))))
    env.reset(0)
    env.step(torch.zeros(64, 19))
    assert ((env.faults.severity == 1).sum(1) == 2).all() and set(env.faults.kind.unique().tolist()) == {-1, 0}
    controller: Any = ENTRANTS["B3pairs"].make(Seed(place.task, place))
    assert isinstance(controller.router, OracleRouter) and controller.bank is not Seed(place.task, place).stored.bank
    told = about("B3pairs", place)
    assert (told["steps"], told["kinds"], told["count"]) == (256 + 432, ["torque_loss"], [2, 2])


def test_a_bank_shared_as_the_pipelines_is_not_made_again(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [same_as(name, place) for name in ("B5one", "B5limb", "B4")] == ["B4", None, None]
    assert about("B4", place)["about"] == "the learned switch, one specialist for all"
    plan = Benchmark(place.task, str(SHIPPED), tmp_path, place.root, (3,), ("B5one",), ("nominal",), episodes=2)
    stage.train(plan)
    assert stage.make(plan) == [] and "left out: B5one of seed 3 is its B4" in capsys.readouterr().out
    assert not place.folder("B5one").exists()


def test_a_trained_rival_is_judged_by_its_name(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stage, "TIMED_STEPS", 3)
    if not place.apart.final("B1").exists():
        ENTRANTS["B1"].train(place)  # type: ignore[misc]
    plan = Benchmark(
        place.task, str(SHIPPED), tmp_path, place.root, (3,), ("B1",), ("nominal",), episodes=2, seconds=0.5
    )
    monkeypatch.setattr("koboshi.stages.entrants.task_of", lambda path: place.task)
    part = load_part(stage.make(plan)[0])
    assert len(part["columns"]["survived"]) == 2 and "alarms" not in part
    assert part["identity"]["files"][0] != part["identity"]["walker"]
