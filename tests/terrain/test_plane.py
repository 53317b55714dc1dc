"""The plane: its height by hand and by MuJoCo's own rays, where environments begin, and what is refused."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
import worlds

from koboshi.config import override
from koboshi.errors import KoboshiError
from koboshi.terrain import PlaneCfg


def ray_height(cfg: PlaneCfg, x: float, y: float) -> float:
    spec = mujoco.MjSpec()
    cfg.build().add_to(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    geom = np.zeros(1, np.int32)
    start = np.array([x, y, 50.0])
    distance = mujoco.mj_ray(model, data, start, np.array([0.0, 0.0, -1.0]), None, 1, -1, geom)
    assert model.geom(int(geom[0])).name == "ground"
    return 50.0 - distance


@pytest.mark.parametrize("cfg", [PlaneCfg(), PlaneCfg(0.7), PlaneCfg(0.7, 0.3), PlaneCfg(-1.0, -0.5)])
def test_height_is_where_a_ray_ends(cfg: PlaneCfg) -> None:
    points = torch.tensor([[[0.0, 0.0, 9.0], [2.0, 0.0, 9.0]], [[0.0, 3.0, 9.0], [-1.5, 1.0, 9.0]]])
    height = cfg.build().height(points[..., 0], points[..., 1])
    assert height.shape == (2, 2)
    by_hand = cfg.height + cfg.slope * points[..., 0]
    torch.testing.assert_close(height, by_hand)
    for point, found in zip(points.reshape(-1, 3).tolist(), height.flatten().tolist(), strict=True):
        assert found == pytest.approx(ray_height(cfg, point[0], point[1]), abs=1e-5)


def test_it_is_one_cell_that_begins_on_the_ground() -> None:
    plane = PlaneCfg(0.7, 0.3).build()
    torch.testing.assert_close(plane.starts, torch.tensor([[[0.0, 0.0, 0.7]]]))
    assert plane.tile_of(torch.rand(5, 2) * 100).tolist() == [0] * 5


def test_friction_reaches_physics() -> None:
    spec = mujoco.MjSpec()
    PlaneCfg(friction=0.3).build().add_to(spec)
    assert spec.compile().geom("ground").friction[0] == 0.3


@pytest.mark.parametrize("change", ["height=.nan", "slope=.inf", "friction=-1", "friction=.nan"])
def test_refused(change: str) -> None:
    with pytest.raises(KoboshiError, match="env.scene.ground: height and slope are finite, friction at least 0"):
        override(worlds.h1(), [f"scene.ground.{change}"])
