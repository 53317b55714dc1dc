"""MuJoCo Warp's captured graphs, with the capture of a GPU that is not there: what it would launch is counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mujoco
import pytest
import torch

pytest.importorskip("mujoco_warp")
from koboshi.sim.gpu import WarpBackend

MODEL = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><body><freejoint/><geom size='.1' mass='1'/></body></worldbody></mujoco>"
)


class Recorder:
    """Warp, but that a capture runs what it captures and a launch is only counted."""

    def __init__(self, warp: Any) -> None:
        self._warp, self.launched = warp, list[object]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._warp, name)

    def ScopedCapture(self) -> Recorder:  # noqa: N802 (Warp's name)
        return self

    def __enter__(self) -> SimpleNamespace:
        return SimpleNamespace(graph=object())

    def __exit__(self, *_: object) -> None: ...

    def capture_launch(self, graph: object) -> None:
        self.launched.append(graph)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> WarpBackend:
    backend = WarpBackend(MODEL, 2, "cpu")
    monkeypatch.setattr(backend, "_wp", Recorder(backend._wp))
    monkeypatch.setattr(backend, "_can_capture", lambda: True)
    return backend


def test_a_control_step_is_one_launch_of_all_its_physics_steps(backend: WarpBackend) -> None:
    time = backend.read("qvel")[:, 2]
    for done in (4, 8):  # the first compiles, the second is captured
        backend.step(4)
        torch.testing.assert_close(time, torch.full((2,), -9.81 * 0.002 * done))
    for _ in range(3):
        backend.step(4)
    (graph,) = set(backend._wp.launched)
    assert len(backend._wp.launched) == 4 and graph is backend._graphs["step", 4]


def test_a_mask_needs_one_more_launch_however_many_rows_it_has(backend: WarpBackend) -> None:
    for _ in range(2):
        backend.forward(torch.tensor([True, False]))
    backend._wp.launched.clear()
    for mask in ([True, False], [True, True], [False, False]):
        backend.forward(torch.tensor(mask))
    assert len(backend._wp.launched) == 3


def test_a_graph_does_not_outlive_the_arrays_it_was_captured_with(backend: WarpBackend) -> None:
    backend.expand("dof_damping")
    for _ in range(2):
        backend.step(4)
    assert backend._graphs
    backend.set_const()  # gives more fields a row a simulation
    assert ("step", 4) not in backend._graphs
