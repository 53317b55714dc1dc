"""Puts the environments' tests on the path, for `worlds` is shared, and makes its robots known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from koboshi.envs import EnvCfg

sys.path.insert(0, str(Path(__file__).parents[1] / "envs"))


@pytest.fixture(autouse=True, scope="module")
def _known_robots() -> Iterator[None]:
    """Known for these tests only: others go through all known robots."""
    import worlds

    from koboshi import robots

    with pytest.MonkeyPatch.context() as patch:
        for robot in (worlds.ROVER, worlds.SECOND, worlds.CROOKED):
            patch.setitem(robots._ROBOTS, robot.name, robot)
        yield


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings to a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def go2() -> EnvCfg:
    import worlds

    return worlds.go2()
