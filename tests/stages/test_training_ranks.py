"""Processes that train together: killed at any moment they resume from the same iteration, or say why not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from toy import ITERATIONS, train

import koboshi
from koboshi.errors import KoboshiError
from koboshi.runs import RunFolder, load_checkpoint
from koboshi.stages import ranks

LIMIT_S = 60


class Killed(BaseException):
    """What no code catches, as a kill."""


class Group:
    """Threads in the place of processes: a kill at each single file would take too long with real ones."""

    def __init__(self, size: int) -> None:
        self.size, self.own = size, threading.local()
        self._barrier = threading.Barrier(size)
        self._slots: list[Any] = [None] * size

    def world(self) -> tuple[int, int]:
        return self.own.rank, self.size

    def exchange(self, value: Any) -> list[Any]:
        self._slots[self.own.rank] = value
        self._barrier.wait(LIMIT_S)
        found = list(self._slots)
        self._barrier.wait(LIMIT_S)
        return found

    def gather(self, value: Any) -> list[Any]:
        return [json.loads(json.dumps(each)) for each in self.exchange(value)]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.exchange(value)).mean(0)

    def run(self, work: Callable[[int], None]) -> list[BaseException | None]:
        """What each one's `work(rank)` ends with; who waits for one that is dead notices it."""
        ends: list[BaseException | None] = [None] * self.size

        def body(rank: int) -> None:
            self.own.rank = rank
            try:
                work(rank)
            except BaseException as end:
                ends[rank] = end
                if not isinstance(end, KoboshiError):  # which all of them raise
                    self._barrier.abort()

        threads = [threading.Thread(target=body, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        return ends


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[BaseException | None]]:
    """together(folder, processes=2): trains in it, and gives what each process ends with."""

    def run(folder: Path, processes: int = 2) -> list[BaseException | None]:
        group = Group(processes)
        monkeypatch.setattr(ranks, "world", group.world)
        monkeypatch.setattr(ranks, "gather", group.gather)
        monkeypatch.setattr(toy, "mean_over_ranks_", group.mean)
        return group.run(lambda rank: train(folder, rank) and None)

    return run


def final(folder: Path) -> torch.Tensor:
    return load_checkpoint(RunFolder(folder).final)[0]["policy.weight"]


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_one_folder_and_a_state_for_each(tmp_path: Path, together: Callable[..., Any]) -> None:
    assert together(tmp_path / "run") == [None, None]
    states = [load_checkpoint(tmp_path / f"run/resume{r}.safetensors")[0] for r in ("", ".rank1")]
    assert [int(state["iteration"]) for state in states] == [ITERATIONS] * 2
    assert torch.equal(states[0]["policy.weight"], states[1]["policy.weight"])
    assert not torch.equal(states[0]["rng"], states[1]["rng"])  # each its own noise
    assert len(list((tmp_path / "run").glob("*.safetensors"))) == 2 and len(list(tmp_path.iterdir())) == 1
    assert steps(tmp_path / "run") == [1, 2, 3, 4, 5]  # the first one alone logs


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_at_any_file_they_end_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: Callable[..., Any], rank: int, after: bool
) -> None:
    whole = tmp_path / "whole"
    assert together(whole) == [None, None]
    rename, left = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        mine = ranks.world()[0] == rank
        left -= mine
        if mine and left == 0 and not after:
            raise Killed
        rename(source, target)
        if mine and left == 0:
            raise Killed

    monkeypatch.setattr(os, "replace", replace)
    kills = 0
    for count in range(1, 100):
        folder, left = tmp_path / str(count), count
        if together(folder) == [None, None]:
            break
        left, kills = 0, kills + 1
        assert together(folder) == [None, None], count
        assert torch.equal(final(folder), final(whole)), count
        assert steps(folder) == steps(whole), count
    # Two for each state; the first one's three checkpoints and final weights.
    assert kills == (10 if rank == 0 else 6)


def test_a_lost_or_damaged_state_is_an_error_for_all(tmp_path: Path, together: Callable[..., Any]) -> None:
    together(tmp_path)
    theirs = tmp_path / "resume.rank1.safetensors"
    theirs.write_bytes(theirs.read_bytes()[:-1])
    for end in together(tmp_path):
        assert isinstance(end, KoboshiError) and f"{theirs} is truncated" in str(end)
    theirs.unlink()
    for end in together(tmp_path):
        assert isinstance(end, KoboshiError)
        assert f"{tmp_path} lacks the state to resume from (of process 1); a new run can start" in str(end)


def test_another_number_of_processes_is_refused(tmp_path: Path, together: Callable[..., Any]) -> None:
    together(tmp_path, 1)
    for end in together(tmp_path, 2):
        assert isinstance(end, KoboshiError) and "was trained with processes 1, not 2" in str(end)


def test_real_processes_resume_too(tmp_path: Path) -> None:
    """The same over gloo: the second process dies when its newer state is written and not yet in its place."""
    assert [code for code, _ in _launch(tmp_path / "whole")] == [0, 0]
    folder = tmp_path / "killed"
    assert _launch(folder, "1", "resume.rank1.safetensors", "2", "before")[1][0] == 9
    held = [int(load_checkpoint(folder / f"resume{r}.safetensors")[1]["iteration"]) for r in ("", ".rank1")]
    assert held == [4, 2]
    assert [code for code, _ in _launch(folder)] == [0, 0]
    assert torch.equal(final(folder), final(tmp_path / "whole"))
    assert steps(folder) == [1, 2, 3, 4, 5]


def _launch(folder: Path, *kill: str) -> list[tuple[int, str]]:
    """(exit code, output) of two processes of `rank_training.py`."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    common = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(koboshi.__file__).parents[1])}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    command = [sys.executable, str(Path(__file__).with_name("rank_training.py")), str(folder), *kill]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [
        subprocess.Popen(command, env=os.environ | common | {"RANK": str(r), "LOCAL_RANK": str(r)}, **pipes)
        for r in range(2)
    ]
    try:
        said = [process.communicate(timeout=2 * LIMIT_S)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]
