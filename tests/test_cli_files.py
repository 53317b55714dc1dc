"""Files that are not what they should be: refused in one line, exit code 2, with nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from files import tree
from koboshi import runs
from koboshi.data import DatasetCard, ShardWriter
from koboshi.data.shards import read_shard
from koboshi.runs import load_checkpoint, save_checkpoint

Fails = Callable[..., str]


def forged(path: Path, source: Path, **changed: Any) -> Path:
    """A whole checkpoint with other meta."""
    tensors, meta = load_checkpoint(source)
    save_checkpoint(path, tensors, meta | changed)
    return path


LAYOUTS = {"policy": [["joint_pos", 0, 69, 1]], "critic": [["joint_pos", 0, 74, 1]]}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"robot": "unitree_g1"}, "was made for robot 'unitree_g1', not 'unitree_h1'"),
        ({"control_dt": 0.01}, "was made for control_dt 0.01, not 0.02"),
        ({"action": {"joints": {"scale": 0.25}}}, "was made for action {'joints': {'scale': 0.25}}, not"),
        ({"layouts": LAYOUTS}, "another layout of observation group 'critic': joint_pos 74, not base_lin_vel 3,"),
        ({"network": {"actor": {"type": "MlpCfg", "hidden": [64, 64]}}}, "these weights do not fit the"),
        ({"task": "my-walk"}, "no task 'my-walk'; did you mean 'h1-walk'?"),
    ],
)
@pytest.mark.parametrize("kind", ["healthy/checkpoints/final.safetensors", "controller.safetensors"])
def test_a_checkpoint_of_something_else_is_refused(
    tmp_path: Path, pipeline: Path, fails: Fails, kind: str, changed: dict[str, Any], says: str
) -> None:
    path = forged(tmp_path / "x.safetensors", pipeline / kind, **changed)
    before = tree(tmp_path)
    assert says in fails("play", path, "--video", tmp_path / "v.mp4")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("healthy/checkpoints/final.safetensors", {"layouts": None}),
        ("healthy/checkpoints/final.safetensors", {"network": {"init_log_std": "wide"}}),
        ("controller.safetensors", {"assignment": {}}),
        ("controller.safetensors", {"detector_spec": {"robot": "unitree_h1"}}),
    ],
)
def test_a_checkpoint_of_another_version_is_refused(
    tmp_path: Path, pipeline: Path, fails: Fails, kind: str, changed: dict[str, Any]
) -> None:
    path = forged(tmp_path / "x.safetensors", pipeline / kind, **changed)
    said = fails("play", path, "--video", tmp_path / "v.mp4")
    assert f"{path} was written by another version of koboshi" in said or "was made for another layout" in said


def test_every_verb_checks_its_checkpoint(tmp_path: Path, pipeline: Path, tiny: list[str], fails: Fails) -> None:
    g1 = forged(tmp_path / "g1.safetensors", pipeline / "healthy/checkpoints/final.safetensors", robot="unitree_g1")
    bank = pipeline / "specialists/bank.safetensors"
    oracle = ("specialists", "h1-dead-joint", "--oracle", "--root", tmp_path, *tiny, "--healthy")
    before = tree(tmp_path)
    assert "was made for robot 'unitree_g1'" in fails(*oracle, g1)
    assert "is a bank of 9 specialists" in fails(*oracle, bank)
    collect = ("collect", "h1-dead-joint", "--root", tmp_path, *tiny, "--policy")
    assert "was made for robot 'unitree_g1'" in fails(*collect, g1)
    assert "is a bank of 9 specialists" in fails(*collect, bank)
    assert "was made for robot 'unitree_g1'" in fails("evaluate", g1, "--out", tmp_path / "out")
    assert tree(tmp_path) == before


def test_a_detector_of_something_else_is_refused(tmp_path: Path, pipeline: Path, tiny: list[str], fails: Fails) -> None:
    source = pipeline / "detector/round-2/detector.safetensors"
    healthy = pipeline / "healthy/checkpoints/final.safetensors"
    command = ("specialists", "h1-dead-joint", "--healthy", healthy, "--root", tmp_path / "runs", *tiny, "--detector")
    g1 = forged(tmp_path / "g1.safetensors", source, robot="unitree_g1")
    assert "was made for robot 'unitree_g1', not 'unitree_h1'" in fails(*command, g1)
    other = forged(tmp_path / "layout.safetensors", source, layout_hash="0123456789abcdef")
    assert "was made for layout_hash '0123456789abcdef'" in fails(*command, other)
    slow = load_checkpoint(source)[1]["spec"] | {"control_dt": 0.04}
    slow_one = forged(tmp_path / "slow.safetensors", source, spec=slow)
    assert "was made for control_dt 0.04, not 0.02" in fails(*command, slow_one)
    assert f"no checkpoint {tmp_path}/none" in fails(*command, tmp_path / "none")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("damage", ["cut", "flip"])
@pytest.mark.parametrize("name", ["controller.safetensors", "healthy/checkpoints/final.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, pipeline: Path, fails: Fails, name: str, damage: str) -> None:
    data = bytearray((pipeline / name).read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    path = tmp_path / "x.safetensors"
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    said = fails("play", path, "--video", tmp_path / "v.mp4")
    wanted = "is truncated or not a safetensors file" if damage == "cut" else "was altered since it was written"
    assert str(path) in said and wanted in said
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def _card(data: Path, **changed: Any) -> None:
    runs.write_json(data / "card.json", runs.read_json(data / "card.json") | changed)


def _split(data: Path, **changed: Any) -> None:
    runs.write_json(data / "split.json", runs.read_json(data / "split.json") | changed)


def _cut(data: Path) -> None:
    shard = data / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])


def _flip(data: Path) -> None:
    shard = data / "shard-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: _card(data, robot="unitree_g1"), "has robot unitree_h1, its card says unitree_g1"),
        (lambda data: _card(data, shards={}), "is empty"),
        (lambda data: _card(data, complete=False), "is not complete; to finish it, run again: "),
        (lambda data: _card(data, joint_names=["a"]), "no joint 'left_hip_yaw'; joints: a"),
        (_cut, "shard-00001.parquet is truncated or tampered with"),
        (_flip, "shard-00001.parquet is truncated or tampered with"),
        (lambda data: (data / "shard-00002.parquet").unlink(), "lacks shard-00002.parquet"),
        (
            lambda data: _split(data, train=[0, 1], calibrate=[], test=[1]),
            "mixes train and test: episodes 1 are in both",
        ),
    ],
)
def test_a_bad_data_set_is_refused(
    tmp_path: Path, pipeline: Path, fails: Fails, spoil: Callable[[Path], None], says: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(pipeline / "data/round-1", data)
    spoil(data)
    before = tree(tmp_path)
    assert says in fails("detector", "train", data, "--out", tmp_path / "detector")
    assert tree(tmp_path) == before


def test_a_data_set_of_another_robot_is_refused(tmp_path: Path, pipeline: Path, fails: Fails) -> None:
    source = pipeline / "data/round-1"
    writer = ShardWriter(tmp_path / "g1", replace(DatasetCard.load(source), robot="unitree_g1"))
    writer.append(read_shard(source / "shard-00000.parquet"))
    writer.finish()
    before = tree(tmp_path)
    says = f"data set {tmp_path}/g1 is of robot 'unitree_g1', not of 'unitree_h1'"
    assert fails("detector", "train", tmp_path / "g1", "--out", tmp_path / "out") == says
    detector = pipeline / "detector/round-1"
    assert fails("detector", "eval", tmp_path / "g1", "--detector", detector, "--out", tmp_path / "out") == says
    assert tree(tmp_path) == before


def test_a_collection_is_not_mixed_with_another(tmp_path: Path, pipeline: Path, tiny: list[str], fails: Fails) -> None:
    data = tmp_path / "data"
    shutil.copytree(pipeline / "data/round-1", data)
    before = tree(tmp_path)
    healthy = pipeline / "healthy/checkpoints/final.safetensors"
    command = ("collect", "h1-dead-joint", *tiny, "--policy", healthy, "--out", data)
    assert f"cannot resume {data}, which holds other data: seed: 30002 -> 8" in fails(*command, "collect.seed=7")
    windy = fails(*command, "env.events.push.active=true", "collect.steps=50")
    assert windy.endswith("settings.steps: 100 -> 50; settings.env.events.push.active: False -> True")
    assert tree(tmp_path) == before
