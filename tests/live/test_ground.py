"""A robot on rough ground: it is put into a cell, stays there over resets, and training's levels are told."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import MagicMock

import mujoco
import numpy as np
import pytest
import torch

from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.live import Session
from koboshi.live.puppet import Puppet
from koboshi.live.session import Driver, session_cfg
from koboshi.policies import ActorCritic
from koboshi.runs import save_checkpoint
from koboshi.stages.evaluate import healthy_alone
from koboshi.stages.live import _levels
from koboshi.tasks import make_task
from koboshi.terrain import GridCfg, PlaneCfg
from koboshi.terrain.shapes import StairsCfg
from koboshi.view.scene import scene


@pytest.fixture(scope="module")
def session() -> Session:
    task = make_task("go2-rough")
    env = Env(session_cfg(task.env))
    policy = ActorCritic(1, env.obs_spec, env.action_space, task.agent.network)
    return Session(task.env, {"a": Driver(healthy_alone(policy.single(), 12), None)}, trained={"boxes": 2.5})


def test_it_begins_in_the_easiest_cell_and_goes_where_it_is_put(session: Session) -> None:
    levels = session.env.scene.levels
    assert session.cell == (0, "slope_up") and session.levels == 10 and "stairs_up" in session.kinds
    session.place(7, "stairs_up")
    assert session.cell == (7, "stairs_up") and session.notes[-1].text == "on stairs up, level 7"
    column = levels.column_of("stairs_up")
    start = session.env.scene.ground.starts[7, column]
    torch.testing.assert_close(session.env.state.base_pos[0, :2], start[:2])
    assert session.env.state.base_height.item() == pytest.approx(session.robot.base_height, abs=1e-3)
    for _ in range(3):
        session.step()
    session.reset()
    torch.testing.assert_close(session.env.state.base_pos[0, :2], start[:2])
    assert not session.now.fell


def test_cells_that_are_not_there(session: Session) -> None:
    with pytest.raises(KoboshiError, match="no type of ground 'stairs'; did you mean 'stairs_up'"):
        session.place(0, "stairs")
    with pytest.raises(KoboshiError, match="levels from 0 to 9, not 10"):
        session.place(10, "boxes")


def toy(ground: GridCfg | PlaneCfg) -> mujoco.MjModel:
    """A ball with a hinge on this ground, to look at."""
    spec = mujoco.MjSpec()
    ball = spec.worldbody.add_body(name="ball", pos=(0, 0, 1))
    ball.add_freejoint()
    arm = ball.add_body()
    arm.add_joint(name="hinge")
    for body in (ball, arm):
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.1, 0, 0))
    ground.build().draw_on(spec)
    return scene(spec)


@pytest.mark.parametrize("ground", [PlaneCfg(), GridCfg({"up": StairsCfg()}, levels=1, columns=1)])
def test_a_ground_of_its_own_has_flat_faces_and_no_lines_across_it(ground: GridCfg | PlaneCfg) -> None:
    model, server = toy(ground), MagicMock()
    puppet = Puppet(server, model, [model.joint("hinge").id], lambda joint: None)
    puppet.pose(np.array(model.qpos0), [], 0)
    drawn = {call.args[0].split("/")[1:][-2]: call.kwargs for call in server.scene.add_mesh_simple.call_args_list}
    own = isinstance(ground, GridCfg)
    assert server.scene.add_grid.called != own and ("world" in drawn) == own
    for height, slowly in ((3.0, 3.0 - 0.1), (3.2, 2.9 + 0.05 * 0.2)):
        puppet.pose(np.array([0.0, 0, height, 1, 0, 0, 0, 0]), [], 0)
        # On a floor it stays; where there is none what is looked at comes after the ball, at once when it is far.
        assert puppet._middle[2] == pytest.approx(slowly if own else 0.0)
    assert [name for name, how in drawn.items() if how["flat_shading"]] == (["world"] if own else [])


def test_levels_of_a_run_up_to_the_checkpoint(tmp_path: Path) -> None:
    rows = [{"step": s, "terrain/level": s, "terrain/level/boxes": s / 2, "loss/kl": 0.1} for s in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "checkpoints" / "000000002.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, {"x": torch.zeros(1)}, {"kind": "policy", "step": 2})
    assert _levels(path) == {"boxes": 1.0}
    assert _levels(tmp_path / "controller.safetensors") == {}
