"""The whole pipeline at a tiny size: what it leaves behind, and that it does nothing twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from koboshi import config, runs
from koboshi.data import Dataset, draw_split
from koboshi.detect import load_detector
from koboshi.envs import Env
from koboshi.envs.cfg import HeadingCfg
from koboshi.errors import KoboshiError
from koboshi.faults import FaultSchedule, Scenarios
from koboshi.policies.storage import load_policy, load_single
from koboshi.specialists.storage import StoredController
from koboshi.specialists.switching import SwitchCfg
from koboshi.stages import pipeline as pipelines
from koboshi.stages.collect import collect_env_cfg, law_card
from koboshi.stages.detector import train as train_detector
from koboshi.stages.evaluate import frozen_scenarios
from koboshi.stages.folders import find, task_of
from koboshi.stages.healthy import train
from koboshi.stages.pipeline import Pipeline
from koboshi.stages.specialists import bank_assignment
from koboshi.stages.specialists import train as train_specialists
from koboshi.tasks import make_task
from koboshi.view.gl import choose_gl

FIGURES = {"survival_mean", "survival_worst", "survival_by_joint", "vx_rmse", "yaw_rmse", "progress", "recovery"}
DETECTION = {"delay_ms_median", "delay_ms_p95", "missed", "false_alarms_per_hour", "macro_f1", "controller_us"}


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{path} holds {constant}, which is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def one_env(folder: Path) -> Env:
    return Env(replace(collect_env_cfg(task_of(folder / "controller.safetensors")), num_envs=1))


def test_every_file_is_there_and_json_is_strict(pipeline: Path) -> None:
    stages = strict_json(pipeline / "stages.json")
    assert list(stages) == [
        "train", "gate", "collect 1", "detector 1", "specialists", "collect 2", "detector 2", "controller", "switch",
        "evaluate",
    ]  # fmt: skip
    names = [
        "config.yaml", "overrides.txt", "controller.safetensors", "controller.json", "scenarios.json", "report.html",
        "healthy/metrics.jsonl", "healthy/config.yaml", "healthy/checkpoints/final.safetensors",
        "healthy/resume.safetensors", "specialists/bank.safetensors", "specialists/members/knee.safetensors",
        "data/round-1/card.json", "data/round-2/statistics.png", "data/round-2/split.json",
        "detector/round-1/detector.png", "detector/round-2/detector.safetensors", "controller-switch.json",
    ]  # fmt: skip
    assert [name for name in names if not (pipeline / name).is_file()] == []
    assert list(pipeline.glob("healthy/events.out.tfevents.*"))
    for path in pipeline.rglob("*.json"):
        strict_json(path)
    if choose_gl() is not None:
        assert [p.suffix for p in sorted(pipeline.glob("video/*"))] == [".mp4", ".png"]
    under = strict_json(pipeline / "controller.json")["trained_under"]
    settings = config.to_dict(task_of(pipeline / "controller.safetensors"))
    assert under["recordings"]["steps"] == settings["collect"]["steps"]
    assert under["faults"] == json.loads(json.dumps(settings["faults"]))
    assert set(under["events"]) == {name for name, term in settings["env"]["events"].items() if term and term["active"]}
    assert (
        under["sensor_noise"]["policy.joint_pos"] == 0.01 and len(under["sensor_noise"]["detector.joint_torque"]) == 19
    )
    assert not any(name.startswith("critic") for name in under["sensor_noise"])
    # Nothing half-written stays behind.
    assert [p for p in pipeline.rglob(".*") if p.name != ".lock"] == []
    assert not list(pipeline.rglob("training.safetensors")) and not list(pipeline.rglob("data/*/resume.safetensors"))
    for run, last in (("healthy", 5), ("specialists", 4)):
        names = [p.stem for p in sorted((pipeline / run / "checkpoints").iterdir())]
        assert names == [*(f"{step:09d}" for step in range(1, last + 1)), "final"]
        weights = runs.load_checkpoint(pipeline / run / "checkpoints/final.safetensors")[0]
        assert all(name.startswith("policy.") for name in weights)
        # Beside the weights, all that goes on: an environment, or, between two stages of specialists, who is done.
        state = runs.load_checkpoint(pipeline / run / "resume.safetensors")[0]
        assert "env.physics" in state if run == "healthy" else "falls" in state


def test_every_policy_knows_the_settings_of_its_run(pipeline: Path) -> None:
    task = config.load_yaml(pipeline / "config.yaml", make_task("h1-dead-joint"))
    assert task.env.num_envs != make_task("h1-dead-joint").env.num_envs
    nested = ("healthy/checkpoints/final.safetensors", "specialists/members/knee.safetensors")
    assert all(task_of(pipeline / path) == task for path in ("controller.safetensors", *nested))


def test_metrics_have_every_key_for_every_controller(pipeline: Path) -> None:
    metrics = strict_json(pipeline / "metrics.json")
    scenarios = Scenarios.load(pipeline / "scenarios.json")
    assert metrics["scenario"] == {"hash": scenarios.hash, "episodes": 17, "seconds": 1.0}
    assert metrics["controller_sha256"] == runs.digest(pipeline / "controller.safetensors")
    assert list(metrics["controllers"]) == ["healthy", "oracle", "oracle_60ms", "learned"]
    joints = [fault.joint for e in scenarios.episodes for fault in e.faults]
    for name, figures in metrics["controllers"].items():
        assert set(figures) >= FIGURES | {"cost_us"} | (DETECTION if name == "learned" else set()), name
        assert list(figures["survival_by_joint"]) == joints
        assert figures["cost_us"] > 0
    report = (pipeline / "report.html").read_text()
    assert scenarios.hash in report and "http://" not in report and "https://" not in report


def test_data_sets_say_who_acted(pipeline: Path) -> None:
    first, second = (Dataset.open(pipeline / "data" / f"round-{r}") for r in (1, 2))
    assert (first.card.controller, second.card.controller) == ("healthy", "switched")
    assert first.card.checkpoint_sha256 == runs.digest(pipeline / "healthy/checkpoints/final.safetensors")
    assert second.card.seed == first.card.seed + 1
    (rows,) = first.sequences()
    assert rows["obs.detector"].shape == (100, 64, 88) and bool((rows["member"] == -1).all())
    assert "ankle" not in " ".join(first.card.candidates) and len(first.card.candidates) == 17


def test_done_stages_are_skipped(pipeline: Path, tiny: list[str], koboshi: Callable[..., Any]) -> None:
    def written() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in pipeline.rglob("*") if p.is_file() and p.name != ".lock"}

    before = written()
    result = koboshi("pipeline", "h1-dead-joint", "--root", pipeline.parent.parent, "--name", "tiny", *tiny)
    assert result.code == 0 and "survival" in result.out
    assert written() == before


def test_a_pipeline_with_other_settings_is_refused(pipeline: Path, tiny: list[str], fails: Callable[..., str]) -> None:
    root = pipeline.parent.parent
    said = fails("pipeline", "h1-dead-joint", "--root", root, "--name", "tiny", *tiny, "rounds=1")
    assert "was made with other settings (rounds: 2 -> 1)" in said


def test_each_member_loads_and_acts_as_in_the_bank(pipeline: Path) -> None:
    env = one_env(pipeline)
    bank, meta = load_policy(pipeline / "specialists/bank.safetensors", env)
    assert len(list((pipeline / "specialists/members").iterdir())) == bank.members == len(meta["members"]) == 9
    width = env.obs_spec["policy"].shape[0]
    obs = torch.randn(bank.members, 5, width, generator=torch.Generator().manual_seed(0))
    together = bank.act({"policy": obs}, (), torch.ones(bank.members, 5, dtype=torch.bool))[0]
    healthy = load_single(pipeline / "healthy/checkpoints/final.safetensors", env)[0]
    for k, name in enumerate(meta["members"]):
        member, about = load_single(pipeline / f"specialists/members/{name}.safetensors", env)
        assert about["members"] == [name]
        alone = member.act({"policy": obs[k : k + 1]}, (), torch.ones(1, 5, dtype=torch.bool))[0]
        assert torch.allclose(alone[0], together[k], atol=1e-6)
        # They all learnt something in this run.
        before = healthy.actor.state_dict()
        assert not any(torch.equal(value, before[key]) for key, value in member.actor.state_dict().items())


def test_the_controller_is_put_together_from_the_parts(pipeline: Path) -> None:
    env = one_env(pipeline)
    stored = StoredController(pipeline / "controller.safetensors", env)
    bank = load_policy(pipeline / "specialists/bank.safetensors", env)[0]
    detector, alarm, meta = load_detector(pipeline / "detector/round-2/detector.safetensors")
    assert meta["loaded"] == str(pipeline / "detector/round-1/detector.safetensors")
    healthy = load_single(pipeline / "healthy/checkpoints/final.safetensors", env)[0]
    for mine, theirs in ((stored.healthy.stack, healthy), (stored.bank.policy, bank), (stored.detector, detector)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in mine.state_dict().items())
    # What the sweep chose, and the rest as the detector was calibrated.
    (*_, taken) = (row for row in strict_json(pipeline / "controller-switch.json") if row["taken"])
    chosen = {name: taken[name] for name in ("threshold", "persistence", "release_steps")}
    assert stored.alarm == replace(alarm, **chosen)
    assert stored.switch == SwitchCfg(taken["dwell_steps"], taken["blend_steps"])
    assert [m.name for m in stored.assignment.members][:3] == ["hip_yaw", "hip_roll", "hip_pitch"]


def test_the_gate_says_by_how_much(tmp_path: Path, tiny: list[str], fails: Callable[..., str]) -> None:
    high = ("gate.survival=0.9", "agent.trainer.timesteps=8")
    said = fails("pipeline", "h1-dead-joint", "--root", tmp_path, *tiny, *high)
    assert said == "the healthy policy does not pass the gate: survival 0.000 must be at least 0.9 (0.900 too low)"
    assert list(runs.read_json(tmp_path / "h1-dead-joint/pipeline/stages.json")) == ["train"]
    assert not (tmp_path / "h1-dead-joint/pipeline/data").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("specialists.num_envs=8", "specialists.num_envs=8 cannot be divided among 9 specialists; 9 or 18 can"),
        ("specialists.num_envs=100", "specialists.num_envs=100 cannot be divided among 9 specialists; 99 or 108 can"),
        ("faults.joints=[left_kne]", "no joint 'left_kne'; did you mean 'left_knee'?"),
        ("collect.num_envs=0", "collect.num_envs must be above 0, not 0"),
        ("rounds=0", "rounds must be at least 1, not 0"),
        ("evaluate.seconds=0", "evaluate.seconds must be above 0, not 0"),
        ("detector=null", "task 'h1-dead-joint' has no settings for 'detector', which this needs"),
        ("faults=null", "has no faults, and so no use for collect, detector, specialists; set them to null too"),
        ("agent.trainer.device=cuda:77", "no device 'cuda:77'"),
        ("detector.training.device=cuda:77", "no device 'cuda:77'"),
        (
            "agent.network.actor.type=GruCfg",
            "is to be as agent.network: actor.type: 'GruCfg' -> 'MlpCfg'",
        ),
        ("agent.network.critic_hidden=[9]", "is to be as agent.network: critic_hidden: [9] -> [128, 128, 128]"),
    ],
)
def test_what_cannot_work_later_is_refused_before_the_first_stage(
    tmp_path: Path, setting: str, says: str, fails: Callable[..., str]
) -> None:
    assert says in fails("pipeline", "h1-dead-joint", "--root", tmp_path, setting)
    assert list(tmp_path.iterdir()) == []


def test_all_stages_break_what_the_task_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = config.override(make_task("h1-dead-joint"), ["faults.kinds=[braking]", "faults.joints=[torso, left_knee]"])
    schedule = collect_env_cfg(task).faults
    assert isinstance(schedule, FaultSchedule) and schedule.faults == task.faults
    scenarios = frozen_scenarios(task, None, tmp_path)
    assert {(f.kind, f.joint) for e in scenarios.episodes for f in e.faults} == {
        ("braking", n) for n in ("torso", "left_knee")
    }
    assert {m.name for m in bank_assignment(task).members} == {"torso", "left_knee"}

    class Stop(Exception):
        pass

    def trainer(env: Any, faults: Any, *others: Any) -> None:
        assert faults == task.faults and others[-1] == 1, "processes of one group differ in their environments"
        raise Stop

    monkeypatch.setattr("koboshi.stages.specialists.init_from_environment", lambda: (1, 2))
    monkeypatch.setattr("koboshi.stages.specialists.BankTrainer", trainer)
    monkeypatch.setattr("koboshi.stages.specialists.load_single", lambda path, env: [None])
    with pytest.raises(Stop):
        train_specialists(task, Path("healthy"), None, tmp_path, None, [])


PLAIN = ["faults=null", "collect=null", "detector=null", "specialists=null", "switch=null"]


def test_a_task_without_faults_has_three_stages(
    tmp_path: Path, tiny: list[str], koboshi: Callable[..., Any], fails: Callable[..., str]
) -> None:
    parts = tuple(f"{name}." for name in ("collect", "detector", "specialists", "switch"))
    settings = [*(s for s in tiny if not s.startswith(parts)), *PLAIN]
    assert koboshi("pipeline", "h1-dead-joint", *settings, "--root", tmp_path).code == 0
    folder = tmp_path / "h1-dead-joint/pipeline"
    assert list(strict_json(folder / "stages.json")) == ["train", "gate", "evaluate"]
    assert list(strict_json(folder / "metrics.json")["controllers"]) == ["healthy"]
    policy = folder / "healthy/checkpoints/final.safetensors"
    assert find("h1-dead-joint/pipeline", tmp_path) == policy
    assert "detector" not in runs.load_checkpoint(policy)[1]["layouts"]
    for verb in (("collect", "--policy", policy), ("specialists", "--oracle", "--healthy", policy)):
        said = fails(verb[0], "h1-dead-joint", *verb[1:], *PLAIN, "--root", tmp_path)
        assert said == "task 'h1-dead-joint' has no faults, which this needs"


def test_each_process_of_a_group_has_a_learner_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def learner(env: Any, agent: Any, rank: int) -> None:
        raise ProcessLookupError(rank)

    monkeypatch.setattr("koboshi.stages.healthy.init_from_environment", lambda: (1, 2))
    monkeypatch.setattr("koboshi.stages.healthy.make_learner", learner)
    with pytest.raises(ProcessLookupError, match="1"):
        train(config.override(make_task("h1-velocity"), ["env.num_envs=4"]), tmp_path, None, [])


def test_a_detector_learns_without_a_mirror_where_it_is_told_to(
    pipeline: Path, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mirror(env: Any) -> None:
        raise KoboshiError("a term without a mirror")

    monkeypatch.setattr("koboshi.stages.detector.mirror_of_detector", mirror)
    task, data = config.override(make_task("h1-dead-joint"), tiny), [pipeline / "data/round-1"]
    with pytest.raises(KoboshiError, match="without a mirror"):
        train_detector(task, data, tmp_path)
    train_detector(config.override(task, ["detector.mirrored=false"]), data, tmp_path)
    assert (tmp_path / "detector.safetensors").exists()


def test_a_detector_begins_with_none_that_learnt_from_what_it_is_tested_on(
    pipeline: Path, tmp_path: Path, tiny: list[str]
) -> None:
    task, data = config.override(make_task("h1-dead-joint"), tiny), tmp_path / "round-1"
    shutil.copytree(pipeline / "data/round-1", data)
    draw_split(Dataset.open([data]), 0.3, 0.3, seed=9)
    with pytest.raises(KoboshiError, match="its test episodes may have been trained on"):
        train_detector(task, [data], tmp_path / "out", pipeline / "detector/round-1/detector.safetensors")


def test_the_card_tells_how_an_action_becomes_a_torque() -> None:
    """By hand: a unit of action is 0.25 rad on a Go2, and its servos pull with 40 N·m/rad and 1 N·m·s/rad."""
    task = make_task("go2-flat")
    env = Env(replace(collect_env_cfg(task), num_envs=1))
    law = law_card(env)
    assert law.action_scale == pytest.approx([0.25] * 12) and law.control == pytest.approx([40.0] * 12)
    assert law.position == pytest.approx([-40.0] * 12) and law.velocity == pytest.approx([-1.0] * 12)
    assert law.action_offset == pytest.approx(env.robot.default_joint_pos.tolist())
    assert law.default_joint_pos == pytest.approx(env.robot.default_joint_pos.tolist())
    assert law.torque_lag_s == task.env.sim.timestep == 0.005


def test_the_plain_task_has_no_faults_and_holds_a_heading() -> None:
    task = make_task("h1-velocity")
    assert (task.faults, task.collect, task.detector, task.specialists) == (None,) * 4
    env = Env(replace(task.env, num_envs=8))
    assert set(env.reset(0)) == {"policy", "critic"}
    before = env.command.value[:, 2].clone()
    heading = HeadingCfg()
    env.step(torch.zeros(8, env.action_space.dim))
    assert task.env.command.heading == heading and not torch.equal(env.command.value[:, 2], before)


def test_h1_is_judged_on_one_joint_at_a_time_whatever_is_trained(tmp_path: Path) -> None:
    """Kinds and severities are the task's, also where they are set; counts and durations are not."""
    task = config.override(make_task("h1-walk"), ["faults.kinds=[locked,braking]", "evaluate.episodes_a_joint=4"])
    assert task.faults and task.faults.count[1] > 1 and task.faults.duration_s is not None
    scenarios = frozen_scenarios(task, None, tmp_path)
    faults = [fault for episode in scenarios.episodes for fault in episode.faults]
    assert len(faults) == len(scenarios.episodes) == 4 * 17
    assert {fault.kind for fault in faults} == {"locked", "braking"}
    assert all(fault.duration_s is None for fault in faults)
    several = frozen_scenarios(config.override(task, ["evaluate.single=false"]), None, tmp_path)
    assert max(len(episode.faults) for episode in several.episodes) > 1
    assert any(fault.duration_s for episode in several.episodes for fault in episode.faults)


def test_another_seed_draws_all_numbers_anew() -> None:
    task = make_task("h1-walk")

    def drawn(seed: int) -> list[int]:
        own = config.override(task, pipelines.seeds(task, seed))
        assert own.collect and own.detector and own.specialists and own.switch
        agents = (own.agent, own.specialists.agent)
        return [*(a.trainer.seed for a in agents), own.collect.seed, own.detector.training.seed, own.switch.seed]

    assert config.override(task, pipelines.seeds(task, 1)) == task
    assert all(len(set(column)) == 3 for column in zip(*map(drawn, (1, 2, 3)), strict=True))
    assert drawn(2)[2] - drawn(1)[2] > task.rounds, "rounds count on from the seed"
    assert pipelines.seeds(make_task("h1-velocity"), 3) == ["agent.trainer.seed=3"]


def test_a_pipeline_that_starts_from_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy of the rough ground is taken to its lower levels; its weights are part of what the pipeline is."""
    small = ["env.num_envs=4", "agent.trainer.timesteps=4", "agent.trainer.rollout=2", "agent.schedule=fixed"]
    before = train(config.override(make_task("go2-rough"), small), tmp_path, "r", small).final
    still = [*small, "agent.learning_rate=0", "agent.entropy_coef=0"]
    task = config.override(make_task("go2-rough-faults"), still)
    monkeypatch.setattr(Pipeline, "_gate", lambda self: {})
    monkeypatch.setattr(Pipeline, "_fault_stages", lambda self: None)
    monkeypatch.setattr(Pipeline, "_evaluate", lambda self: runs.write_json(self.folder / "metrics.json", {}) or {})
    pipeline = Pipeline(task, tmp_path, "p", still, before)
    pipeline.run()
    old, new = (
        runs.load_checkpoint(path)[0] for path in (before, pipeline.folder / "healthy/checkpoints/final.safetensors")
    )
    for name, value in old.items():
        if name.startswith("policy.actor."):
            assert torch.equal(value, new[name]), name
    for folder in (pipeline.folder, pipeline.folder / "healthy"):
        assert strict_json(folder / "made_from.json")["load"] == runs.digest(before)
    card: dict[str, Any] = {"controllers": {}, "controller_sha256": "", "scenario": ""}
    pipeline._write_card(card)
    assert f"--load {before}" in strict_json(pipeline.folder / "controller.json")["command"]
    with pytest.raises(KoboshiError, match="p was made with other settings"):
        Pipeline(config.override(task, ["goes_on_from=null"]), tmp_path, "p", still).run()
    with pytest.raises(
        KoboshiError, match="'go2-rough-faults' goes on from a policy of go2-rough: give its run by --load"
    ):
        Pipeline(task, tmp_path, "q", still).run()
    with pytest.raises(KoboshiError, match="unitree_h1|layout"):
        Pipeline(config.override(make_task("h1-dead-joint"), still), tmp_path, "q", still, before).run()
    assert not (tmp_path / "go2-rough-faults" / "q").exists() and not (tmp_path / "h1-dead-joint").exists()
