"""Crossing rough ground: who crossed, who fell, how fast, by hand; and robots begin in the cells they are meant for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from koboshi import config
from koboshi.bench.crossing import Cells, crossing_figures, crossings, every_cell, straight_on
from koboshi.bench.rollout import Recording
from koboshi.errors import KoboshiError
from koboshi.policies import ActorCritic
from koboshi.stages import ground_benchmark
from koboshi.stages.evaluate import healthy_alone, loading_env
from koboshi.tasks import make_task
from koboshi.terrain import GridCfg
from koboshi.terrain.shapes import BoxesCfg, StairsCfg

DT, T = 0.02, 200
GROUND = GridCfg({"up": StairsCfg(share=0.7), "boxes": BoxesCfg(share=0.3)}, levels=2, columns=3)


def test_every_type_at_every_level_in_all_of_its_columns() -> None:
    cells = every_cell(GROUND, 4)
    assert cells.types == ("up", "boxes") and len(cells.level) == 2 * 2 * 4
    rows = list(zip(cells.kind.tolist(), cells.level.tolist(), cells.column.tolist(), strict=True))
    for level in range(2):
        assert [c for k, lv, c in rows if (k, lv) == (0, level)] == [0, 1, 0, 1]
        assert [c for k, lv, c in rows if (k, lv) == (1, level)] == [2, 2, 2, 2]
    with pytest.raises(KoboshiError, match="robots must be at least 1, not 0"):
        every_cell(GROUND, 0)


def recording(velocity: list[float], end: list[int]) -> Recording:
    """Robots that walk along x at a speed of their own from their first step on, told to walk at 0.5 m/s."""
    n, v = len(velocity), torch.tensor(velocity)
    x = torch.arange(T)[:, None] * DT * v
    zero = torch.zeros(T, n)
    about: dict[str, Any] = {"scenarios": straight_on("unitree_go2", n, 0.5, 1), "step_dt": DT}
    empty = torch.zeros(T, n)
    return Recording(
        onset=torch.zeros(n, dtype=torch.int64),
        end=torch.tensor(end),
        command=torch.tensor([0.5, 0.0, 0.0]).expand(T, n, 3),
        velocity=torch.stack((v.expand(T, n), zero, zero), dim=-1),
        pose=torch.stack((x + 3.0, zero - 2.0, zero), dim=-1),
        target=empty,
        contact=empty.bool()[..., None],
        member=empty.short(),
        qpos=torch.zeros(T, 0, 1),
        **about,
    )


def cells(n: int, level: list[int], levels: int = 2) -> Cells:
    zeros = torch.zeros(n, dtype=torch.int64)
    return Cells(torch.tensor(level), zeros, zeros, ("up",), levels, size=2.0)


def test_who_crossed_who_fell_and_how_fast() -> None:
    # Half a cell is 1 m: at 0.4 m/s that takes 2.5 s of 4 s; at 0.2 m/s time is over before.
    found = crossings(recording([0.4, 0.2, 0.4, 0.4, 0.4], [T, T, 130, 120, 30]), cells(5, [0] * 5))
    assert found.crossed.tolist() == [True, False, True, False, False]
    assert found.fell.tolist() == [False, False, False, True, True]  # who falls after it crossed has crossed
    torch.testing.assert_close(found.speed[:4], torch.tensor([0.8, 0.4, 0.8, 0.8]))
    assert found.speed[4].isnan()  # it fell within the first second


def test_what_it_does_after_it_crossed_is_not_its_speed() -> None:
    track = recording([0.5], [T])
    track.velocity[150:] = 99.0  # it crossed at 2 s, step 101
    found = crossings(track, cells(1, [0]))
    torch.testing.assert_close(found.speed, torch.ones(1))


def test_figures_by_type_and_level() -> None:
    speeds = [0.4, 0.4, 0.4, 0.4, 0.4] + [0.4, 0.4, 0.4, 0.4, 0.1] + [0.4, 0.4, 0.1, 0.1, 0.1] + [0.4] * 5
    level = [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    where = cells(20, level, levels=4)
    figures = crossing_figures(crossings(recording(speeds, [T] * 20), where), where)
    assert figures["types"]["up"]["crossed"] == pytest.approx([1.0, 0.8, 0.4, 1.0])
    # The highest level does not count: the one before it is not passed.
    assert figures["types"]["up"]["passed"] == 2 == figures["passed"]
    assert figures["crossed"] == pytest.approx(16 / 20) and figures["fell"] == 0
    assert figures["speed"] == pytest.approx(0.8)
    assert figures["types"]["up"]["speed"][0] == pytest.approx(0.8)


def test_a_speed_that_goes_nowhere() -> None:
    with pytest.raises(KoboshiError, match="above 0 m/s, not 0"):
        straight_on("unitree_go2", 1, 0.0, 1)


def test_robots_begin_in_their_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three levels of three columns: each robot's first place is the middle of its own cell."""
    small = config.override(make_task("go2-rough"), ["env.scene.ground.levels=3", "env.scene.ground.columns=7"])
    seen: list[tuple[Recording, Cells]] = []

    def note(recording: Recording, cells: Cells) -> Any:
        seen.append((recording, cells))
        return crossings(recording, cells)

    monkeypatch.setattr(ground_benchmark, "crossings", note)
    env = loading_env(small)
    policy = ActorCritic(1, env.obs_spec, env.action_space, small.agent.network)
    ground_benchmark.cross(small, healthy_alone(policy.single(), 12), robots=1, speed=0.6, seconds=0.1)
    (track, where), starts = seen[0], small.env.scene.ground.build().starts
    assert len(where.level) == 21 and len(set(zip(where.level.tolist(), where.column.tolist(), strict=True))) == 21
    away = (track.pose[0, :, :2] - starts[where.level, where.column][:, :2]).norm(dim=1)
    assert away.max() < 0.05
    with pytest.raises(KoboshiError, match="asks for v_x from -1 to 1 m/s, and never for 2"):
        ground_benchmark.cross(small, healthy_alone(policy.single(), 12), robots=1, speed=2.0, seconds=0.1)
