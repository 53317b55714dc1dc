"""Shared by the tests of the command line: a runner, a killer, and one tiny pipeline for all that only read it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

TINY = [
    "env.num_envs=16", "agent.trainer.timesteps=40", "agent.trainer.rollout=8",
    "agent.trainer.checkpoint_interval=1", "gate.episodes=4", "gate.survival=0", "gate.seconds=1",
    "collect.num_envs=64", "collect.steps=100", "collect.shard_steps=25", "collect.onset_s=[0.1,0.4]",
    "detector.training.epochs=1", "detector.network.embed=16", "detector.network.hidden=16",
    "specialists.num_envs=36", "specialists.agent.trainer.rollout=8",
    "specialists.agent.trainer.checkpoint_interval=1", "specialists.stages=[16,16]", "specialists.solved=0",
    "specialists.onset_s=[0.0,0.02]", "specialists.switch_delay_s=[0.0,0.0]", "evaluate.episodes_a_joint=1",
    "evaluate.seconds=1", "evaluate.healthy_hours=0.01", "evaluate.oracle_delays_s=[0.06]",
    "specialists.detector_share=0.5", "specialists.focus=0.5", "switch.num_envs=4", "switch.seconds=0.3",
    "switch.healthy_hours=0.003", "switch.onset_s=[0.0,0.1]", "switch.release_steps=[50]",
    "switch.dwell_steps=[3]", "switch.blend_steps=[2]",
]  # fmt: skip

_KILLER = """
import os, signal, sys
from fnmatch import fnmatch

rename, left = os.replace, int(sys.argv[2])

def replace(source, target, pattern=sys.argv[1]):
    global left
    rename(source, target)
    left -= fnmatch(str(target), pattern)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace
sys.argv = ["koboshi", *sys.argv[3:]]
from functools import partial
from koboshi.cli import main
from koboshi.stages import evaluate
evaluate.FILM_S, evaluate.FILMED = 0.1, 1
evaluate.controller_speed = partial(evaluate.controller_speed, steps=20, repeats=1)
main()
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


def _shorten(patch: pytest.MonkeyPatch) -> None:
    """What no setting shortens; as in `_KILLER`."""
    from koboshi.stages import evaluate

    patch.setattr(evaluate, "FILM_S", 0.1)
    patch.setattr(evaluate, "FILMED", 1)
    patch.setattr(evaluate, "controller_speed", partial(evaluate.controller_speed, steps=20, repeats=1))


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings with which the whole pipeline takes seconds."""
    return list(TINY)


@pytest.fixture
def koboshi(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """koboshi(verb, …): the command line in this process; an unexpected exception comes through."""
    from koboshi.cli import main

    _shorten(monkeypatch)

    def run(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["koboshi", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        return Result(int(exit_.value.code or 0), *capsys.readouterr())

    return run


@contextmanager
def _restored() -> Iterator[None]:
    from koboshi import config, plugins, robots, tasks
    from koboshi.faults import kinds

    modules, found_robots, found_kinds = set(sys.modules), dict(robots.known()), len(kinds.KINDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "_ALSO", {known: list(others) for known, others in config._ALSO.items()})
        patch.setattr(tasks, "_added", dict(tasks._added))
        patch.setattr(plugins, "_loaded", dict(plugins._loaded))
        try:
            yield
        finally:
            for name in set(robots.known()) - set(found_robots):
                del robots._ROBOTS[name]
            for kind in kinds.KINDS[found_kinds:]:
                kinds.KINDS.remove(kind)
                if kinds.FAULT_KINDS.pop(kind).captures:
                    kinds.CAPTURING.remove(kind)
            for name in set(sys.modules) - modules:
                if name.startswith("outside_"):
                    del sys.modules[name]


@pytest.fixture
def as_before() -> Iterator[None]:
    """Forgets the robots, tasks, kinds of fault and modules that a test has added."""
    with _restored():
        yield


@pytest.fixture
def restored() -> Callable[[], AbstractContextManager[None]]:
    """`with restored():` forgets what was added within, as another process would not know it."""
    return _restored


@pytest.fixture
def fails(koboshi: Callable[..., Result]) -> Callable[..., str]:
    """fails(verb, …) -> the one line that a command which cannot work says; it exits with 2."""

    def run(*args: object) -> str:
        result = koboshi(*args)
        lines = result.err.splitlines()
        assert (result.code, len(lines)) == (2, 1), result
        assert lines[0].startswith("koboshi: ")
        return lines[0].removeprefix("koboshi: ")

    return run


@pytest.fixture
def killed() -> Callable[..., None]:
    """killed(pattern, count, verb, …): runs a command that gets SIGKILL once it has written `count` such files."""

    def run(pattern: str, count: int, *args: object) -> None:
        command = [sys.executable, "-c", _KILLER, pattern, str(count), *map(str, args)]
        threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        found = subprocess.run(command, env=threads, capture_output=True, text=True)
        assert found.returncode == -9, found.stderr

    return run


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one tiny pipeline, run once for all workers; nobody may write to it."""
    from koboshi import config
    from koboshi.stages.pipeline import Pipeline
    from koboshi.tasks import make_task

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pipeline"
    root.mkdir(exist_ok=True)
    folder = root / "h1-dead-joint" / "tiny"
    with open(root / "lock", "w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other workers wait here and find it done
        if not (folder / "controller.json").exists():
            _shorten(patch)
            Pipeline(config.override(make_task("h1-dead-joint"), TINY), root, "tiny", list(TINY)).run()
    return folder


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Call it with a number: as if the machine had so many, and every batch were worth working on in as many parts."""
    before = torch.get_num_threads()
    monkeypatch.setattr("koboshi.nets.parts.FEWEST_ROWS", 1)
    yield torch.set_num_threads
    torch.set_num_threads(before)
