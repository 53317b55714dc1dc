"""Grids of sub-terrains: heights against MuJoCo's own rays, shapes by hand, levels, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from koboshi.config import override
from koboshi.envs import EnvCfg
from koboshi.envs.levels import Levels
from koboshi.errors import KoboshiError
from koboshi.terrain import Grid, GridCfg
from koboshi.terrain.cell import Site, ring, square
from koboshi.terrain.shapes import AnySubTerrain, BoxesCfg, FlatCfg, GapsCfg, SlopeCfg, StairsCfg, WavesCfg
from koboshi.terrain.windows import AWAY

SITE = Site(8.0, 1.0)
TYPES: dict[str, AnySubTerrain] = {
    "flat": FlatCfg(),
    "up": StairsCfg(),
    "down": StairsCfg(up=False),
    "boxes": BoxesCfg(),
    "platforms": BoxesCfg(count=8, width=(1.0, 2.0), height=(0.02, 0.1)),
    "gaps": GapsCfg(),
    "valley": SlopeCfg(),
    "hill": SlopeCfg(up=False, noise=(0.01, 0.05)),
    "rough": SlopeCfg(slope=(0.0, 0.0), noise=(0.02, 0.1)),
    "waves": WavesCfg(),
}
ALL = GridCfg(dict(TYPES), levels=3, columns=10)


def rays(model: mujoco.MjModel, points: np.ndarray, pos: np.ndarray | None = None) -> np.ndarray:
    """(P,) where rays from above end."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    geom, down = np.zeros(1, np.int32), np.array([0.0, 0.0, -1.0])
    starts = np.column_stack((points, np.full(len(points), 20.0)))
    return np.array([20 - mujoco.mj_ray(model, data, start, down, None, 1, -1, geom) for start in starts])


def height(grid: Grid, points: torch.Tensor) -> torch.Tensor:
    return grid.height(points[..., 0], points[..., 1])


def whole(grid: Grid) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    grid.draw_on(spec)
    return spec.compile()


def test_heights_are_where_rays_end() -> None:
    """Of every type at every level, of the level ground around the grid and far outside."""
    grid, rng = ALL.build(), np.random.default_rng(0)
    points = np.column_stack((rng.uniform(-14, 14, 5000), rng.uniform(-44, 44, 5000)))
    heights = height(grid, torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(heights, rays(whole(grid), points), atol=2e-5)
    assert {round(h, 2) for h in heights.tolist()} >= {-0.05, -0.8, -1.61, 0.0, 1.61}
    assert height(grid, torch.tensor([[1e4, 0.0], [-1e4, 3.0], [0.0, 1e4]])).tolist() == [0, 0, 0]


def test_heights_keep_their_shape() -> None:
    points, grid = torch.rand(4, 7, 2) * 20 - 10, ALL.build()
    assert height(grid, points).shape == (4, 7)
    torch.testing.assert_close(height(grid, points)[2], height(grid, points[2]))


def test_stairs_by_hand() -> None:
    """8 m with an edge of 1 m and a platform of at least 2 m: 3 - 1 = 2 m hold six treads of 0.3 m, so seven risers."""
    up = GridCfg({"up": StairsCfg(riser=(0.1, 0.2))}, levels=2, columns=1, first_level=None).build()
    assert up.starts[:, 0].tolist() == [[-4.0, 0.0, pytest.approx(-0.7)], [4.0, 0.0, pytest.approx(-1.4)]]
    offsets = torch.tensor([0.0, 1.19, 1.21, 1.49, 1.51, 2.69, 2.71, 2.99, 3.01, 4.0])
    expected = torch.tensor([-7, -7, -6, -6, -5, -2, -1, -1, 0, 0]) * 0.1
    for axis in (0, 1):
        points = torch.zeros(len(offsets), 2)
        points[:, axis] = -offsets
        torch.testing.assert_close(height(up, points + torch.tensor([-4.0, 0.0])), expected)
    down = GridCfg({"down": StairsCfg(up=False, riser=(0.1, 0.1))}, levels=1, columns=1).build()
    points = torch.stack((offsets, torch.zeros_like(offsets)), -1)
    torch.testing.assert_close(height(down, points[:-1]), -expected[:-1])


def test_gaps_and_slopes_by_hand() -> None:
    gaps = GapsCfg(gap=(0.2, 0.2), strip=0.6, platform=2.0, depth=0.5)
    grid = GridCfg({"gaps": gaps}, levels=1, columns=1).build()
    points = torch.tensor([[x, 0.0] for x in (0.0, 0.99, 1.01, 1.19, 1.21, 1.79, 1.81, 1.99, 2.01, 2.61, 2.81)])
    torch.testing.assert_close(height(grid, points), torch.tensor([0, 0, -0.5, -0.5, 0, 0, -0.5, -0.5, 0, -0.5, 0.0]))
    slope = GridCfg({"hill": SlopeCfg(up=False, slope=(0.3, 0.3))}, levels=1, columns=1).build()
    points = torch.tensor([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, -2.55], [3.0, 0.0], [3.5, 1.0]])
    torch.testing.assert_close(height(slope, points), torch.tensor([0.6, 0.6, 0.3, 0.135, 0.0, 0.0]))
    assert slope.starts[0, 0].tolist() == [0.0, 0.0, pytest.approx(0.6)]


def test_difficulty_goes_from_the_first_level_to_the_last() -> None:
    grid = GridCfg({"up": StairsCfg(riser=(0.05, 0.23))}, levels=10, columns=2).build()
    starts = grid.starts[:, 0, 2] / -7
    torch.testing.assert_close(starts, torch.linspace(0.05, 0.23, 10))
    half = GridCfg({"up": StairsCfg(riser=(0.0, 0.2))}, levels=3, columns=1, difficulty=(0.5, 1.0)).build()
    torch.testing.assert_close(half.starts[:, 0, 2] / -7, torch.tensor([0.1, 0.15, 0.2]))


def test_what_is_drawn_follows_from_the_seed() -> None:
    def tops(seed: int) -> torch.Tensor:
        grid = GridCfg({"boxes": BoxesCfg()}, levels=2, columns=2, seed=seed).build()
        return height(grid, torch.stack(torch.meshgrid(*[torch.linspace(-8, 8, 81)] * 2, indexing="ij"), -1))

    torch.testing.assert_close(tops(0), tops(0))
    assert not torch.equal(tops(0), tops(1))
    cells = tops(0)[:80, :80].unflatten(0, (2, 40)).unflatten(2, (2, 40))
    assert not torch.equal(cells[0, :, 0], cells[0, :, 1])


def test_boxes_leave_the_middle_and_the_edge_free() -> None:
    rng = np.random.default_rng(0)
    for difficulty in (0.0, 1.0):
        cell = BoxesCfg(height=(0.05, 0.2)).build(SITE, difficulty, rng)
        assert len(cell.boxes) == 25
        for box in cell.boxes[1:]:
            assert max(*map(abs, box.low), *map(abs, box.high)) <= SITE.half + 0.05
            assert not all(low < 1 and high > -1 for low, high in zip(box.low, box.high, strict=True))
            assert (0.05, 0.2)[int(difficulty)] / 3 <= box.top <= (0.05, 0.2)[int(difficulty)]


def test_columns_are_dealt_by_shares() -> None:
    types = {"a": FlatCfg(share=0.5), "b": FlatCfg(share=0.3), "c": FlatCfg(share=0.2), "d": FlatCfg(share=1e-6)}
    grid = GridCfg(dict(types), levels=1, columns=11).build()
    assert [grid.column_types.count(name) for name in "abcd"] == [5, 3, 2, 1]
    assert grid.column_types == sorted(grid.column_types)


def test_a_ring_and_a_square_cover_what_they_say() -> None:
    area = sum((b.high[0] - b.low[0]) * (b.high[1] - b.low[1]) for b in ring(1.0, 2.5, 0.0))
    assert area == pytest.approx(5.0**2 - 2.0**2)
    box = square(1.5, 0.2)
    assert (box.low, box.high, box.top) == ((-1.5, -1.5), (1.5, 1.5), 0.2)


def test_tiles_are_told_apart() -> None:
    """Squares of 1 m; two cells of 8 m by one, and a tile more on each side: 18 by 10."""
    grid = GridCfg({"flat": FlatCfg()}, levels=2, columns=1).build()
    points = torch.tensor([[-8.9, -4.9], [-8.9, -3.9], [-7.9, -4.9], [8.9, 4.9], [9.1, 0.0], [0.0, -5.1]])
    assert grid.tile_of(points).tolist() == [0, 1, 10, 179, 180, 180]


def test_windows_hold_what_is_within_reach_and_seen() -> None:
    """On top of stairs down: the platform alone in the middle; at its edge the steps too, cut where nobody reaches."""
    grid = GridCfg({"down": StairsCfg(up=False, riser=(0.1, 0.1))}, levels=1, columns=1, reach=0.5).build()
    windows = grid.windows

    def held(x: float, y: float) -> list[list[float]]:
        tile = int(grid.tile_of(torch.tensor([x, y])))
        here = windows.pos[tile, :, 2] > AWAY / 2
        low, high = (windows.pos[tile] + s * windows.size[tile] for s in (-1, 1))
        rows = torch.cat((low[:, :2], high[:, :2], high[:, 2:]), 1)[here]
        return sorted([[round(v, 3) for v in row] for row in rows.tolist()], key=lambda row: row[-1])

    assert held(0.2, 0.2) == [[-0.5, -0.5, 1.5, 1.5, 0.6], [-0.5, -0.5, 1.2, 1.2, 0.7]]
    edges = ((3.5, 0.0), (3.0, 0.1), (2.7, 0.2), (2.4, 0.3), (2.1, 0.4), (1.8, 0.5))
    assert held(2.5, 0.5) == [[1.5, -0.5, x, 1.5, pytest.approx(h)] for x, h in edges]
    assert held(50.0, 0.0) == [[-1e4, -1e4, 1e4, 1e4, 0.0]]
    assert windows.field_lift is None


def levels_of(count: int, n: int = 6, first: int | None = 0) -> Levels:
    cfg = GridCfg({"up": StairsCfg(), "flat": FlatCfg()}, levels=count, columns=2, first_level=first)
    return Levels(cfg.build(), n, torch.device("cpu"))


def test_levels_go_up_and_down_and_above_the_highest_begin_anywhere() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = levels_of(4)
    levels.draw(generator)
    assert levels.level.tolist() == [0] * 6 and levels.column.tolist() == [0, 0, 0, 1, 1, 1]
    nobody, everybody = torch.zeros(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)
    levels.move(everybody, nobody, generator)
    levels.move(torch.tensor([True, True, False, False, False, False]), torch.arange(6) > 3, generator)
    assert levels.level.tolist() == [2, 2, 1, 1, 0, 0]
    levels.move(nobody, torch.arange(6) == 5, generator)
    assert levels.level.tolist() == [2, 2, 1, 1, 0, 0]
    assert levels.summary() == {
        "terrain/level": pytest.approx(1.0),
        "terrain/level/up": pytest.approx(5 / 3),
        "terrain/level/flat": pytest.approx(1 / 3),
    }
    seen = set()
    for _ in range(50):
        levels.level = torch.full((6,), 3)
        levels.move(everybody, nobody, generator)
        seen |= set(levels.level.tolist())
    assert seen == {0, 1, 2, 3}


def test_levels_are_drawn_up_to_the_first_and_restored() -> None:
    generator = torch.Generator().manual_seed(0)
    for first, highest in ((0, 0), (2, 2), (None, 4)):
        levels = levels_of(5, 400, first)
        levels.draw(generator)
        assert set(levels.level.tolist()) == set(range(highest + 1))
        other = levels_of(5, 400, first)
        other.load_state_dict(levels.state_dict())
        torch.testing.assert_close(other.origins, levels.origins)
    assert levels_of(1).summary() == {}
    assert levels_of(5, 1).summary() == {"terrain/level": 0.0, "terrain/level/up": 0.0}  # nobody is on the other type


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": {}}, "names no sub-terrain"),
        ({"levels": 0}, "levels must be at least 1"),
        ({"columns": 2}, "columns must be at least 10"),
        ({"size": 8.03}, "size is a multiple of 0.1 m"),
        ({"border": 0.05}, "border is a multiple of 0.1 m from 0.1"),
        ({"reach": 0.0}, "reach is above 0 m"),
        ({"size": 2.0}, "is all edge"),
        ({"difficulty": (0.0, 1.2)}, "difficulty goes from 0 to 1"),
        ({"first_level": 3}, "first_level is one of 3 levels, not 3"),
        ({"friction": -1.0}, "friction is at least 0"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        replace(ALL, **change).validate()


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (StairsCfg(tread=0.33), r"StairsCfg.tread is a multiple of 0.05 m, not 0.33 m"),
        (StairsCfg(platform=6.0), "leaves no room for a tread of 0.3 m"),
        (GapsCfg(strip=0.02), "GapsCfg.strip is a multiple of 0.05 m"),
        (GapsCfg(gap=(0.0, 0.0)), "GapsCfg.gap is a multiple of 0.05 m"),
        (BoxesCfg(width=(6.5, 7.0)), "BoxesCfg.width of .* is too much"),
        (BoxesCfg(platform=5.5), "BoxesCfg.platform of 5.5 m leaves no room for boxes"),
        (GapsCfg(platform=2.05), "GapsCfg.platform's half is a multiple of 0.05 m, not 1.025 m"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(cfg: AnySubTerrain, message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        GridCfg({"it": cfg}, levels=1, columns=1).build()


def test_settings_are_overridden_by_their_path(go2: EnvCfg) -> None:
    cfg = override(replace(go2, scene=replace(go2.scene, ground=ALL)), [
        "scene.ground.levels=5", "scene.ground.types.up.riser=[0.1, 0.15]", "scene.ground.types.waves=null",
    ])  # fmt: skip
    assert isinstance(cfg.scene.ground, GridCfg)
    assert (cfg.scene.ground.levels, list(cfg.scene.ground.present)) == (5, [name for name in TYPES if name != "waves"])
    with pytest.raises(KoboshiError, match="SlopeCfg.slope is finite and at least 0"):
        override(cfg, ["scene.ground.types.hill.slope=[0.0, -0.1]"])
    assert isinstance(override(cfg, ["scene.ground.type=PlaneCfg"]).scene.ground, type(go2.scene.ground))
