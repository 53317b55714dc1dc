from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from koboshi.errors import KoboshiError
from koboshi.runs import (
    RunFolder,
    atomic_path,
    check_shapes,
    digest,
    git_commit,
    list_runs,
    load_checkpoint,
    read_json,
    resolve_run,
    save_checkpoint,
    write_atomic,
    write_json,
)

WEIGHTS = {
    "actor.weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "step": torch.tensor(3),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
}
META = {"robot": "unitree_g1", "layout": [["joint_pos", 0, 19]]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, WEIGHTS, META)
    return path


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: os._exit(9))
        if (child := os.fork()) == 0:
            write_json(path, {"step": 2})
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert read_json(path) == {"step": 1}
    assert list(tmp_path.glob("state*")) == [path]
    write_json(path, {"step": 3})
    assert read_json(path) == {"step": 3}


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "shard.parquet") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_keeps_the_suffix_and_makes_the_folder(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "video.mp4") as temporary:
        assert temporary.suffix == ".mp4" and temporary.parent == tmp_path / "new"
        temporary.write_bytes(b"whole")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["video.mp4"]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "weights.safetensors"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KoboshiError, match=rf"no space left to write {path} \(\d+ bytes free\)"):
        save_checkpoint(path, WEIGHTS, META)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"


def test_read_json_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(KoboshiError, match="no file .*none.json"):
        read_json(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"a": 1')
    with pytest.raises(KoboshiError, match="cut.json is not valid JSON"):
        read_json(tmp_path / "cut.json")


def test_a_checkpoint_comes_back_bit_for_bit(checkpoint: Path) -> None:
    tensors, meta = load_checkpoint(checkpoint, expect={"robot": "unitree_g1", "layout": (("joint_pos", 0, 19),)})
    assert meta == META
    assert tensors.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert tensors[name].dtype == value.dtype and torch.equal(tensors[name], value)


def test_tensors_that_share_memory_can_be_saved(tmp_path: Path) -> None:
    whole = torch.randn(4, 3)
    save_checkpoint(tmp_path / "a.safetensors", {"whole": whole, "row": whole[1], "turned": whole.T}, {})
    tensors, _ = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(tensors["row"], whole[1]) and torch.equal(tensors["turned"], whole.T)


def test_every_altered_byte_is_noticed(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(0, start, 7), *range(start, len(whole))]
    for place in places:
        altered = bytearray(whole)
        altered[place] ^= 1
        checkpoint.write_bytes(altered)
        try:
            tensors, meta = load_checkpoint(checkpoint)
        except KoboshiError:
            continue
        # Only padding and the like may change unnoticed: what is loaded is what was saved.
        assert meta == META, place
        assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS), place
        assert place < start
    checkpoint.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(KoboshiError, match="was altered since it was written"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_checkpoint_is_named(checkpoint: Path, keep: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(KoboshiError, match="weights.safetensors is truncated or not a safetensors file"):
        load_checkpoint(checkpoint)


def test_a_checkpoint_for_something_else_is_refused(checkpoint: Path) -> None:
    with pytest.raises(KoboshiError, match="was made for robot 'unitree_g1', not 'unitree_h1'"):
        load_checkpoint(checkpoint, expect={"robot": "unitree_h1"})
    with pytest.raises(KoboshiError, match="no checkpoint .*none"):
        load_checkpoint(checkpoint.with_name("none"))


def test_check_shapes_names_each_tensor() -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(3)}
    check_shapes(state, state, "the actor")
    wrong = r"do not fit the actor: missing b; unexpected c; a is \(4,\), not \(2,\)"
    with pytest.raises(KoboshiError, match=wrong):
        check_shapes({"a": torch.zeros(4), "c": torch.zeros(1)}, state, "the actor")


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, "h1-walk", "first")
    for step in (1, 2, 3):
        run.log(step, {"reward": float(step), "loss": float("nan")})
    run.close()
    with open(run.metrics, "a") as file:
        file.write('{"step": 4, "rew')  # a kill in the middle of a line
    run = RunFolder.open(tmp_path, "h1-walk", "first")
    run.truncate_metrics(2)
    run.log(3, {"reward": 30.0})
    run.close()
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert lines[0] == {"step": 1, "reward": 1.0, "loss": None}
    assert [(line["step"], line["reward"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    events = EventAccumulator(str(run.path)).Reload().Scalars("reward")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_all_weights_stay_and_the_last_ones_have_a_name_of_their_own(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, "h1-walk", "first")
    assert run.latest() is None
    steps = (5, 10, 15, 20)
    for step in steps:
        run.save(step, WEIGHTS, META)
    assert not run.final.exists()
    run.save_final(20, WEIGHTS, META)
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == [*(f"{step:09d}.safetensors" for step in steps), "final.safetensors"]
    newest = run.checkpoints / "000000020.safetensors"
    assert run.latest() == newest
    assert load_checkpoint(newest)[1] == {**META, "step": 20}
    assert digest(run.final) == digest(newest)


def test_a_corrupt_newest_checkpoint_is_reported_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder.open(tmp_path, "h1-walk", "first")
    older, newer = run.save(1, WEIGHTS, META), run.save(2, WEIGHTS, META)
    newer.write_bytes(newer.read_bytes()[:-1])
    assert run.latest() == older
    assert "000000002.safetensors is truncated" in capsys.readouterr().err


def test_runs_are_found_by_path_and_name(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, "h1-walk", "first")
    with pytest.raises(KoboshiError, match="has no whole checkpoint"):
        resolve_run("h1-walk/first", tmp_path)
    saved = run.save(1, WEIGHTS, META)
    assert resolve_run("h1-walk/first", tmp_path) == saved
    assert resolve_run(run.path) == saved
    assert resolve_run(saved) == saved
    assert list_runs(tmp_path) == [run.path]
    with pytest.raises(
        KoboshiError, match="no run 'h1-walk/frst'; did you mean 'h1-walk/first'\\? runs: h1-walk/first"
    ):
        resolve_run("h1-walk/frst", tmp_path)


def test_a_run_without_a_name_is_named_after_the_time(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, "h1-walk")
    assert run.path.parent == tmp_path / "h1-walk" and len(run.path.name) == len("2026-01-01_00-00-00")


def test_git_commit_is_a_short_hash_or_unknown() -> None:
    commit = git_commit()
    assert commit == "unknown" or (len(commit) >= 7 and int(commit, 16) >= 0)
