"""The H1 that ships, under its controller, as `koboshi view` watches it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import koboshi
from koboshi.live import Session
from koboshi.stages import live

H1 = Path(koboshi.__file__).parent / "assets" / "h1_walk" / "controller.safetensors"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings to a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def h1_file() -> Path:
    return H1


@pytest.fixture
def session() -> Session:
    return live.session(H1)[0]


@pytest.fixture
def steps() -> Callable[[Session, float], None]:
    """steps(session, seconds): steps it for so long."""

    def run(session: Session, seconds: float) -> None:
        for _ in range(round(seconds / session.env.step_dt)):
            session.step()

    return run
