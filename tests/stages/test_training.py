"""The training loop and the state it resumes from, with a learner that costs nothing."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ITERATIONS, META, Toy, train

from koboshi.errors import KoboshiError
from koboshi.runs import RunFolder, load_checkpoint, save_checkpoint
from koboshi.stages import training


class Killed(BaseException):
    """What no code catches, as a kill."""


def final(folder: Path) -> torch.Tensor:
    return load_checkpoint(RunFolder(folder).final)[0]["policy.weight"]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def logged(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["noise"]) for line in lines]


def test_weights_are_small_and_stay_and_the_state_is_large_and_replaced(tmp_path: Path) -> None:
    learner = train(tmp_path)
    run = RunFolder(tmp_path)
    names = ["000000002", "000000004", "000000005", "final"]
    assert sorted(p.name for p in run.checkpoints.iterdir()) == [f"{name}.safetensors" for name in names]
    for path in run.checkpoints.iterdir():
        tensors, meta = load_checkpoint(path, expect=META)
        assert set(tensors) == {"policy.weight", "policy.bias"}, path
        assert meta["seconds"] > 0
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["resume.safetensors"]
    state, meta = load_checkpoint(run.resume)
    assert set(state) == set(learner.state_dict())
    assert (meta["kind"], meta["iteration"], int(state["iteration"])) == ("resume", ITERATIONS, ITERATIONS)
    assert training.training_seconds(run) == meta["seconds"]


def test_killed_at_any_file_it_ends_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole")
    rename, left, after = os.replace, 0, False

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Killed
        rename(source, target)
        if left == 0:
            raise Killed

    monkeypatch.setattr(os, "replace", replace)
    kills = 0
    for after in (False, True):  # noqa: B007 (read in replace)
        for count in range(1, 100):
            folder, left = tmp_path / f"{after}-{count}", count
            try:
                train(folder)
            except Killed:
                left, kills = 0, kills + 1
                train(folder)
            else:
                break
            assert torch.equal(final(folder), final(tmp_path / "whole")), count
            assert logged(folder) == logged(tmp_path / "whole"), count
            assert checkpoints(folder) == checkpoints(tmp_path / "whole"), count
    # Three checkpoints and three states, and a final one.
    assert kills == 2 * 7  # three checkpoints, three states and the final weights, before and after each


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    train(tmp_path)
    before = final(tmp_path)
    assert train(tmp_path).iteration == ITERATIONS
    assert torch.equal(final(tmp_path), before) and len(logged(tmp_path)) == ITERATIONS


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_state_is_refused_and_the_way_out_is_named(tmp_path: Path, damage: str) -> None:
    train(tmp_path)
    path = RunFolder(tmp_path).resume
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data[:100] if damage == "cut" else data)
    with pytest.raises(KoboshiError) as error:
        train(tmp_path)
    wanted = "is truncated" if damage == "cut" else "was altered"
    assert f"{path} {wanted}" in str(error.value)
    assert f"a new run can start from its weights: --load {tmp_path} --name NEW" in str(error.value)


def test_a_finished_run_without_its_state_is_not_begun_anew(tmp_path: Path) -> None:
    train(tmp_path)
    RunFolder(tmp_path).resume.unlink()
    with pytest.raises(KoboshiError, match="lacks the state to resume from .*; a new run can start from its weights"):
        train(tmp_path)


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    run = RunFolder(tmp_path)
    save_checkpoint(run.resume, *load_checkpoint(run.final))
    with pytest.raises(KoboshiError, match="was made for kind 'policy', not 'resume'"):
        train(tmp_path)


def test_a_run_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path)
    monkeypatch.setitem(META, "layout", [["a", 0, 2]])
    with pytest.raises(KoboshiError, match=r"was trained with layout \[\['a', 0, 1\]\], not \[\['a', 0, 2\]\]"):
        train(tmp_path)
    monkeypatch.setitem(META, "layout", (("a", 0, 1),))  # as JSON it is the same
    assert train(tmp_path).iteration == ITERATIONS


def test_the_state_holds_more_than_the_weights(tmp_path: Path) -> None:
    """Noise and environment too: without either the numbers would differ."""
    train(tmp_path)
    whole = Toy()
    whole.load_state_dict(load_checkpoint(RunFolder(tmp_path).resume)[0])
    only_weights = Toy()
    only_weights.policy.load_state_dict(whole.policy.state_dict())
    assert whole.iterate()["clock"] == ITERATIONS + 1
    only_weights.iterate()
    assert not torch.equal(whole.policy.weight, only_weights.policy.weight)


def test_a_state_of_another_version_is_told_from_a_crash(tmp_path: Path) -> None:
    class Newer(Toy):
        def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
            super().load_state_dict({**state, "clock": state["lag"]})

    train(tmp_path)
    run, learner = RunFolder(tmp_path), Newer()
    with pytest.raises(KoboshiError, match=r"was left by another version of koboshi .*alone can resume it: KeyError"):
        training.train_loop(run, learner, lambda: False, 5, 1, 2, META, "toy", {})


def test_a_loss_that_is_not_finite_ends_the_training_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    class Diverges(Toy):
        def iterate(self) -> dict[str, float]:
            log = super().iterate()
            bad = self.iteration == 4
            return log | {"loss/value": math.inf if bad else 0.5, "loss/kl": math.nan if bad else 0.0, "fell": math.nan}

    run, learner = RunFolder(tmp_path), Diverges()
    with pytest.raises(KoboshiError, match=r"in iteration 4 loss/value, loss/kl is not finite; .*000000002.* before"):
        training.train_loop(run, learner, lambda: learner.iteration >= 5, 5, 1, 2, META, "toy", {})
    assert checkpoints(tmp_path) == ["000000002.safetensors"]
    assert [step for step, _ in logged(tmp_path)] == [1, 2, 3]
    (tmp_path / "other").mkdir()
    first = Diverges()
    with pytest.raises(KoboshiError, match="no checkpoint was written before"):
        training.train_loop(RunFolder(tmp_path / "other"), first, lambda: False, 5, 1, 9, META, "toy", {})
