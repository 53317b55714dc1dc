"""The command line: verbs do what they say; a mistake is one line and exit code 2, with nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from files import tree
from koboshi import config, robots, runs
from koboshi.bench.worlds import WORLDS
from koboshi.envs.terms import rewards
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, Fault
from koboshi.robots import UNITREE_H1
from koboshi.runs import load_checkpoint
from koboshi.stages import folders
from koboshi.stages import play as playing
from koboshi.stages.healthy import shortfalls
from koboshi.tasks import make_task
from koboshi.tasks.task import GateCfg

Fails = Callable[..., str]
SMALL = ["env.num_envs=4", "agent.trainer.timesteps=4", "agent.trainer.rollout=4"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Verbs


def test_train_writes_its_settings(tmp_path: Path, koboshi: Callable[..., Any]) -> None:
    settings = [*SMALL, "env.events.reset_joints=null", "env.rewards.feet_slide.weight=-0.5"]
    result = koboshi("train", "h1-dead-joint", *settings, "--root", tmp_path, "--name", "a")
    run = tmp_path / "h1-dead-joint" / "a"
    assert result.code == 0 and result.out.splitlines()[-1] == str(run)
    assert (run / "overrides.txt").read_text().splitlines() == settings
    task = config.load_yaml(run / "config.yaml", make_task("h1-dead-joint"))
    assert task == config.override(make_task("h1-dead-joint"), settings)
    assert task.env.num_envs == 4 and "reset_joints" not in task.env.events
    slide = task.env.rewards["feet_slide"]
    assert slide is not None and slide.weight == -0.5
    assert folders.task_of(run / "checkpoints/final.safetensors") == task
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["000000001.safetensors", "final.safetensors"]


def test_load_starts_a_new_run_from_old_weights(tmp_path: Path, koboshi: Callable[..., Any], fails: Fails) -> None:
    train = ("train", "h1-dead-joint", "--root", tmp_path, *SMALL)
    assert koboshi(*train, "--name", "old").code == 0
    old = load_checkpoint(tmp_path / "h1-dead-joint/old/checkpoints/final.safetensors")[0]
    # With a rate of 0 nothing but the statistics moves: the networks are the old run's, noise and values too.
    still = ("agent.learning_rate=0", "agent.schedule=fixed", "env.rewards.feet_slide=null", "env.num_envs=6")
    assert koboshi(*train, *still, "--name", "new", "--load", "h1-dead-joint/old").code == 0
    new = tmp_path / "h1-dead-joint/new"
    tensors = load_checkpoint(new / "checkpoints/final.safetensors")[0]
    assert tensors.keys() == old.keys()
    networks = [n for n in old if ".actor." in n or n.endswith("log_std")]
    assert networks and all(torch.equal(tensors[n], old[n]) for n in networks)
    assert [line["step"] for line in lines(new / "metrics.jsonl")] == [1]
    origin = runs.digest(tmp_path / "h1-dead-joint/old/checkpoints/000000001.safetensors")
    assert runs.read_json(new / "made_from.json") == {"verb": "train", "load": origin}
    # The very same again resumes it; without --load it is another run's name.
    assert koboshi(*train, *still, "--name", "new", "--load", "h1-dead-joint/old").code == 0
    assert f"{new} was made with other settings (load: removed)" in fails(*train, *still, "--name", "new")


def test_load_says_which_number_differs(tmp_path: Path, koboshi: Callable[..., Any], fails: Fails) -> None:
    train = ("train", "h1-dead-joint", "--root", tmp_path, *SMALL)
    assert koboshi(*train, "--name", "old").code == 0
    before = tree(tmp_path)
    load = (*train, "--name", "new", "--load", "h1-dead-joint/old")
    said = fails(*load, "agent.network.actor.hidden=[128,128,64]")
    assert "these weights do not fit the network to be trained" in said
    assert "128)" in said and "64)" in said and "network.actor.hidden: [128, 128, 128] -> [128, 128, 64]" in said
    said = fails(*load, "env.observations.policy.terms.joint_vel=null")
    assert "another layout of observation group 'policy'" in said and "joint_vel 19" in said
    assert tree(tmp_path) == before


def test_resume_needs_something_to_resume(tmp_path: Path, koboshi: Callable[..., Any], fails: Fails) -> None:
    train = ("train", "h1-dead-joint", "--root", tmp_path, *SMALL)
    assert "nothing to resume: no run under" in fails(*train, "--resume")
    assert "a holds no resume.safetensors" in fails(*train, "--resume", "--name", "a")
    assert tree(tmp_path) == {}
    assert koboshi(*train, "--name", "a").code == 0
    before = tree(tmp_path)
    said = fails(*train, "--resume", "--name", "a")
    assert f"nothing to resume: {tmp_path}/h1-dead-joint/a is finished; a new run can start from it: --load" in said
    assert tree(tmp_path) == before
    # As a kill after the last iteration leaves it.
    (tmp_path / "h1-dead-joint/a/.unfinished").touch()
    (tmp_path / "h1-dead-joint/a/checkpoints/final.safetensors").unlink()
    assert "was made with other settings" in fails(*train, "--resume", "--name", "a", "agent.gamma=0.9")
    result = koboshi(*train, "--resume")
    assert result.code == 0 and f"resuming {tmp_path}/h1-dead-joint/a" in result.out
    assert (tmp_path / "h1-dead-joint/a/checkpoints/final.safetensors").exists()


def test_who_serves_which_joints(koboshi: Callable[..., Any]) -> None:
    """Of H1's 17 joints the two legs and the two arms have 4 each: of pairs 4 · 6 of 136 lie within a limb."""
    said = koboshi("list", "banks", "--task", "h1-dead-joint").out
    assert "specialists.sharing=mirrored_pair" in said and "most probable fault acts" in said
    rows = {cells[1].strip(): cells[2:-1] for line in said.splitlines() if len(cells := re.split("[│┃]", line)) == 7}
    assert [cell.strip() for cell in rows["limb"]] == ["5", "100%", "18%", "2%"]
    assert [cell.strip() for cell in rows["mirrored_pair *"]] == ["9", "100%", "0%", "0%"]
    assert [cell.strip() for cell in rows["one"]] == ["1", "100%", "100%", "100%"]
    knee = next(line for line in said.splitlines() if "left_knee" in line)
    assert "right_knee" in knee and "knee" in knee.split("│")[1]


def test_list_faults_names_each_kind_and_its_picture(
    tmp_path: Path, koboshi: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("koboshi.stages.fault_traces.picture", lambda *args: asked.append(args) or tmp_path)
    said = koboshi("list", "faults", "--task", "go2-flat", "--joint", "RL_calf_joint", "--out", tmp_path).out
    assert all(kind in said for kind in KINDS) and str(tmp_path) in said
    assert (asked[0][0].name, *asked[0][1:]) == ("go2-flat", "RL_calf_joint", tmp_path)
    said = koboshi("list", "worlds").out
    assert all(world in said for world in WORLDS)
    wrong = koboshi("list", "fault")
    assert wrong.code == 2 and "everything" in wrong.err and "faults" in wrong.err and len(asked) == 1


def test_list_shows_tasks_robots_runs_and_pipelines(pipeline: Path, koboshi: Callable[..., Any]) -> None:
    said = koboshi("list", "--root", pipeline.parent.parent).out.splitlines()
    assert said[0].startswith("tasks: ") and "h1-dead-joint" in said[0]
    assert any(line.startswith("robot unitree_h1: ") and "left_knee" in line for line in said)
    assert said[-3:] == [
        "pipeline h1-dead-joint/tiny: controller.safetensors",
        "run h1-dead-joint/tiny/healthy: 000000005.safetensors",
        "run h1-dead-joint/tiny/specialists: 000000004.safetensors",
    ]


def test_play_films_a_fault(tmp_path: Path, pipeline: Path, koboshi: Callable[..., Any]) -> None:
    from koboshi.view.gl import choose_gl

    video = tmp_path / "out.mp4"
    fault = ("--fault", "left_knee@0.1:torque_loss:0.5", "--seconds", "0.2", "--command", "0.5", "0", "0")
    result = koboshi("play", "h1-dead-joint/tiny", "--root", pipeline.parent.parent, *fault, "--video", video)
    assert result.code == 0 and "fell_at_s: " in result.out and "switched_to: " in result.out
    assert video.exists() == (choose_gl() is not None)


def test_data_and_detector_eval(tmp_path: Path, pipeline: Path, koboshi: Callable[..., Any], fails: Fails) -> None:
    data, detector = tmp_path / "data", pipeline / "detector/round-2"
    shutil.copytree(pipeline / "data/round-1", data)
    result = koboshi("detector", "eval", data, "--detector", detector, "--out", tmp_path / "eval")
    assert result.code == 0 and "macro f1" in result.out
    figures = runs.read_json(tmp_path / "eval/detector.json")
    assert {"delay_ms_median", "delay_ms_p95", "missed", "false_alarms_per_hour", "macro_f1"} <= set(figures)
    assert len(figures["curve"]) > 10 and (tmp_path / "eval/detector.png").exists()
    for name in ("split.json", "statistics.json", "statistics.png"):
        (data / name).unlink()
    result = koboshi("data", data, "--split", "0.2", "0.3", "--seed", "3")
    assert result.code == 0 and "left_knee" in result.out
    split, statistics = runs.read_json(data / "split.json"), runs.read_json(data / "statistics.json")
    assert split["seed"] == 3 and statistics["split"]["test"] > 0 and (data / "statistics.png").exists()
    assert len(split["test"]) == round(0.3 * statistics["episodes"])
    # Its test episodes were others when the detector was trained.
    assert "test episodes may have been trained on" in fails("detector", "eval", data, "--detector", detector)


def test_evaluate_repeats_the_pipelines_figures(tmp_path: Path, pipeline: Path, koboshi: Callable[..., Any]) -> None:
    # The settings are the pipeline's own, which lie beside the controller.
    scenarios = pipeline / "scenarios.json"
    command = ("evaluate", "h1-dead-joint/tiny", "--root", pipeline.parent.parent, "--out", tmp_path)
    result = koboshi(*command, "--scenarios", scenarios, "evaluate.oracle_delays_s=[]")
    assert result.code == 0
    mine, theirs = (runs.read_json(f / "metrics.json") for f in (tmp_path, pipeline))
    assert mine["scenario"] == theirs["scenario"]
    assert list(mine["controllers"]) == ["healthy", "oracle", "learned"]
    for name, figures in mine["controllers"].items():
        same = {k: v for k, v in figures.items() if not k.endswith(("_us", "_ratio"))}
        assert same == {k: v for k, v in theirs["controllers"][name].items() if not k.endswith(("_us", "_ratio"))}


def test_check_finds_nothing_in_a_robot_that_ships_and_advises(tmp_path: Path, koboshi: Callable[..., Any]) -> None:
    result = koboshi("check", "unitree_h1", "--out", tmp_path)
    assert result.code == 0 and "gains  left_hip_pitch: ring: " in result.out
    assert result.out.splitlines()[-1] == f"{tmp_path}/unitree_h1/step_response.png"
    assert (tmp_path / "unitree_h1/step_response.png").stat().st_size > 10_000


def test_check_exits_with_1_where_something_is_wrong(
    tmp_path: Path, koboshi: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(robots._ROBOTS, "unitree_h1", replace(UNITREE_H1, base_height=1.5))
    result = koboshi("check", "unitree_h1", "--out", tmp_path)
    assert result.code == 1 and "feet  left_foot: " in result.out


# Mistakes


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train h1-wlk", "no task 'h1-wlk'; did you mean 'h1-walk'? tasks: "),
        ("train h1-dead-joint env.num_env=8", "no key 'env.num_env'; did you mean 'env.num_envs'?"),
        ("train h1-dead-joint env.num_envs=many", "env.num_envs: expected int, got 'many'"),
        ("train h1-dead-joint env.num_envs=0", "env.num_envs must be at least 1, not 0"),
        ("train h1-dead-joint env.events.shove=null", "no key 'env.events.shove'"),
        ("train h1-dead-joint nonsense", "'nonsense' is not an override; write key=value"),
        ("train h1-dead-joint agent.trainer.timesteps=0", "agent.trainer.timesteps must be at least 1, not 0"),
        ("train h1-dead-joint agent.type=SacCfg", "agent.type: expected 'PPOCfg' or 'DistillationCfg', got 'SacCfg'"),
        ("train h1-dead-joint agent.trainer.device=cuda:77", "no device 'cuda:77'"),
        ("specialists h1-dead-joint --oracle --healthy a specialists.agent.trainer.device=cuda:77", "no run 'a'"),
        ("train h1-dead-joint --load nobody", "no run 'nobody'; runs: (none)"),
        ("train h1-dead-joint --load a --resume", "--load starts a new run and --resume goes back to an old one"),
        ("specialists h1-dead-joint --oracle --healthy a --load b --resume", "--load starts a new run and --resume"),
        ("detector train a.b=3", "no data set was given, only settings"),
        ("detector train nowhere detector.fals=3", "no key 'detector.fals'; keys: network, training"),
        ("evaluate nobody evaluate.seconds=3", "no run 'nobody'"),
        ("bench speed env.num_env=4", "no key 'env.num_env'; did you mean 'env.num_envs'?"),
        ("demo --task h1-wlk", "no task 'h1-wlk'; did you mean 'h1-walk'?"),
        ("check unitree_go", "no robot 'unitree_go'; did you mean 'unitree_go2'?"),
        ("play nobody", "no run 'nobody'; runs: (none)"),
        ("collect h1-dead-joint --policy nobody", "no run 'nobody'"),
        ("specialists h1-dead-joint --healthy nobody --oracle", "no run 'nobody'"),
        ("specialists h1-dead-joint --healthy a", "give either --detector FILE or --oracle"),
        ("specialists h1-dead-joint --healthy a --oracle --detector b", "give either --detector FILE or --oracle"),
        ("evaluate nobody", "no run 'nobody'"),
        ("data nowhere", "no data set at nowhere (it has no card.json)"),
        ("detector train nowhere", "no data set at nowhere"),
        ("detector eval nowhere --detector none", "no checkpoint none"),
        ("demo env.num_env=3 --out {tmp}/demo", "no key 'env.num_env'; did you mean 'env.num_envs'?"),
        ("demo --task h1-velocity --out {tmp}/demo", "no controller of task 'h1-velocity' is shipped, only of: "),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails, command: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in fails(*command.format(tmp=tmp_path).split())
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("h1-dead-joint/tiny --fault left_kne@3", "no joint 'left_kne'; did you mean 'left_knee'? joints: left_hip_"),
        ("h1-dead-joint/tiny --fault left_knee", "'left_knee' is not a fault; write joint@seconds[:kind[:severity"),
        ("h1-dead-joint/tiny --fault torso@1 --fault left_kne@3", "no joint 'left_kne'; did you mean 'left_knee'?"),
        ("h1-dead-joint/tiny --camera behnd", "no camera 'behnd'; cameras: three_quarter, side"),
        ("h1-dead-joint/tiny --seconds 0", "--seconds must be above 0, not 0.0"),
        ("h1-dead-joint/tny", "no run 'h1-dead-joint/tny'; did you mean 'h1-dead-joint/tiny'? runs: h1-dead-"),
        ("h1-dead-joint/tiny/specialists", "is a bank of 9 specialists, and one policy is wanted"),
        ("{folder}/specialists/bank.safetensors", "is a bank of 9 specialists"),
        ("{folder}/detector/round-1/detector.safetensors", "holds a detector, and a policy or a controller is wanted"),
    ],
)
def test_play_says_what_is_wrong(tmp_path: Path, pipeline: Path, fails: Fails, options: str, says: str) -> None:
    words = options.format(folder=pipeline).split()
    assert says in fails("play", *words, "--root", pipeline.parent.parent, "--video", tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("left_knee@3.0", Fault("left_knee", "torque_loss", 1.0, 3.0)),
        ("torso@0:locked", Fault("torso", "locked", 1.0, 0.0)),
        ("torso@1.5:braking:0.25", Fault("torso", "braking", 0.25, 1.5)),
        ("torso@1.5:braking:0.25:2", Fault("torso", "braking", 0.25, 1.5, 2.0)),
    ],
)
def test_faults_are_read(text: str, fault: Fault) -> None:
    assert playing.parse_fault(text, UNITREE_H1) == fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("torso@", "is not a fault"),
        ("torso@soon", "is not a fault; write joint@seconds"),
        ("torso@-1", "onset ≥ 0 s"),
        ("torso@nan", "onset ≥ 0 s"),
        ("torso@inf", "onset ≥ 0 s"),
        ("torso@1:lokced", "no fault kind 'lokced'; did you mean 'locked'?"),
        ("torso@1:locked:0", "severity is above 0 and at most 1"),
        ("torso@1:locked:1.5", "severity is above 0 and at most 1"),
        ("torso@1:locked:1:0", "duration above 0 s"),
        ("torso@1:locked:1:1:2:1", "is not a fault"),
    ],
)
def test_what_is_no_fault_is_named(text: str, says: str) -> None:
    with pytest.raises(KoboshiError, match=says):
        playing.parse_fault(text, UNITREE_H1)


def test_the_gate_names_each_shortfall() -> None:
    figures = {"survival_mean": 0.95, "vx_rmse": 0.1, "vy_rmse": 0.3, "yaw_rmse": None, "duty_difference": 0.08}
    assert shortfalls(GateCfg(), figures) == [
        "survival 0.950 must be at least 0.99 (0.040 too low)",
        "left–right duty difference 0.080 must be at most 0.05 (0.030 too high)",
    ]
    assert shortfalls(GateCfg(survival=0.9, duty_difference=0.08, yaw_rmse=0.1), figures) == []
    assert shortfalls(GateCfg(survival=0.9, vx_rmse=0.05, vy_rmse=0.25, duty_difference=None), figures) == [
        "v_x RMSE in m/s 0.100 must be at most 0.05 (0.050 too high)",
        "v_y RMSE in m/s 0.300 must be at most 0.25 (0.050 too high)",
    ]


def test_a_run_with_other_settings_is_refused_and_left_alone(
    tmp_path: Path, koboshi: Callable[..., Any], fails: Fails
) -> None:
    command = ("train", "h1-dead-joint", "--root", tmp_path, "--name", "a", *SMALL)
    assert koboshi(*command).code == 0
    before = tree(tmp_path)
    assert "was made with other settings (agent.gamma: 0.99 -> 0.9); use those" in fails(*command, "agent.gamma=0.9")
    # A term that is gone now is a difference too.
    assert "was made with other settings (no key" in fails(*command, "env.rewards.feet_slide=null")
    assert tree(tmp_path) == before
    with folders.locked(tmp_path / "h1-dead-joint/a"):
        assert f"another process is writing to {tmp_path}/h1-dead-joint/a" in fails(*command)


def test_nan_stops_the_run_and_names_the_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr(rewards.flat_orientation, "__code__", (lambda env: env.qvel[:, 0] * float("nan")).__code__)
    said = fails("train", "h1-dead-joint", "--root", tmp_path, *SMALL)
    assert said == "reward 'flat_orientation' is not finite"


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    command = ("train", "h1-dead-joint", "--root", tmp_path, "--name", "a", *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "no space left to write" in fails(*command) and "bytes free" in fails(*command)
    assert {Path(name).name for name in tree(tmp_path)} == {".lock", ".unfinished"}
    with monkeypatch.context() as patch:
        patch.setattr(runs.RunFolder, "log", full)  # not an atomic write
        assert fails(*command) == "no space left to write metrics.jsonl"


def test_what_nobody_expected_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    from koboshi.cli import main

    def broken(_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("koboshi.stages.tables.show_everything", broken)
    monkeypatch.setattr(sys, "argv", ["koboshi", "list"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main()


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_politely_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, koboshi: Callable[..., Any], given: dict[str, str], found: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    koboshi("list")
    assert os.environ.get("GOMP_SPINCOUNT") == found


@pytest.mark.parametrize("command", ["nonsense", "play", "train h1-dead-joint --nme a", "play x --seconds soon"])
def test_usage_errors_exit_with_2_too(koboshi: Callable[..., Any], command: str) -> None:
    result = koboshi(*command.split())
    assert result.code == 2 and "Usage:" in result.err and "Traceback" not in result.err


def test_as_a_process(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "koboshi", "train", "h1-wlk"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("koboshi: no task 'h1-wlk'; did you mean 'h1-walk'? tasks: ")
    assert len(found.stderr.splitlines()) == 1
