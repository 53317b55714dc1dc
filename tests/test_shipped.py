"""The controllers that ship: each fits its task and its card, and carries its robot on; a damaged one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import koboshi
from koboshi import robots, runs
from koboshi.bench.rollout import rollout
from koboshi.bench.worlds import NOMINAL
from koboshi.faults import Fault, Scenario, Scenarios
from koboshi.stages.evaluate import load
from koboshi.tasks import TaskCfg, make_task

FILE = "controller.safetensors"
FOLDERS = sorted(path.parent for path in (Path(koboshi.__file__).parent / "assets").glob(f"*/{FILE}"))
COMMAND = (0.6, 0.0, 0.0)


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def task(folder: Path) -> TaskCfg:
    return make_task(folder.name.replace("_", "-"))


def test_they_are_there() -> None:
    assert {"go2_flat", "h1_walk"} <= {folder.name for folder in FOLDERS}
    assert sum(path.stat().st_size for folder in FOLDERS for path in folder.iterdir()) < 40e6


def test_each_fits_its_task_and_its_card(folder: Path, task: TaskCfg) -> None:
    stored, card = load(folder / FILE, task), runs.read_json(folder / "controller.json")
    assert card["sha256"] == runs.digest(folder / FILE) and card["commit"] == stored.meta["commit"]
    assert task.faults is not None
    served = {joint for member in stored.assignment.members for joint in member.joints}
    assert served == set(task.faults.candidates(stored.robot))
    assert stored.detector.spec.joint_names == list(stored.robot.joint_names)


def test_each_carries_on(folder: Path, task: TaskCfg) -> None:
    stored = load(folder / FILE, task)
    legs = [name for group, names in stored.robot.groups.items() if "leg" in group for name in names]
    joints = [name for name in legs if name in stored.robot.fault_candidates]
    episodes = tuple(Scenario((Fault(name, onset_s=1.0),), COMMAND, 1.0) for name in joints)
    # Where a task draws worlds and shoves a few episodes are chance; what they come to stands in the README.
    walked = rollout(task.env, stored.learned(), Scenarios(stored.robot.name, 7, episodes), 3.0, world=NOMINAL)
    steps = len(walked.velocity)
    fell = [name for name, end in zip(joints, walked.end.tolist(), strict=True) if end < steps]
    assert fell == []
    assert float(walked.velocity[steps // 2 :, :, 0].mean()) > 0.7 * COMMAND[0]


def test_what_is_damaged_or_misspelt_is_one_line(
    folder: Path, task: TaskCfg, tmp_path: Path, fails: Callable[..., str]
) -> None:
    whole = (folder / FILE).read_bytes()
    path = tmp_path / "x.safetensors"
    film = ("--video", tmp_path / "v.mp4")
    for damaged, says in (
        (whole[: len(whole) // 2], "is truncated"),
        (whole[:7], "is truncated"),
        (whole[:-3] + bytes(byte ^ 1 for byte in whole[-3:]), "was altered"),
    ):
        path.write_bytes(damaged)
        said = fails("play", path, *film)
        assert says in said and str(path) in said and "\n" not in said
    joint = robots.find(task.env.robot).fault_candidates[0]
    said = fails("play", folder / FILE, "--fault", f"{joint[:-1]}@1", *film)
    assert f"no joint '{joint[:-1]}'; did you mean '{joint}'?" in said
    other = next(each for each in ("go2-flat", "h1-walk") if each != task.name)
    said = fails("collect", other, "--policy", folder / FILE, "--out", tmp_path / "data")
    assert "was made for robot" in said
    assert not (tmp_path / "v.mp4").exists() and not (tmp_path / "data").exists()
