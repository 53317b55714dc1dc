"""One shipped controller, exported once for all tests that only read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import koboshi
from koboshi.stages.exporting import export

GO2 = Path(koboshi.__file__).parent / "assets" / "go2_flat" / "controller.safetensors"


@pytest.fixture
def shipped() -> Path:
    return GO2


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("export") / "go2"
    export(GO2, folder)
    yield folder
