"""Frozen scenarios: files, hashes, plans, and the environment that follows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from koboshi.envs import Env
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, Scenario, Scenarios, joint_sweep
from koboshi.faults.state import NEVER
from koboshi.robots import UNITREE_G1, UNITREE_H1
from koboshi.tasks.h1_walk import env_cfg

KNEE = UNITREE_H1.joint_id("left_knee")
THREE = Scenarios(
    "unitree_h1",
    5,
    (
        Scenario("left_knee", "locked", 1.0, 0.1, (0.5, 0.0, 0.25)),
        Scenario(None, "torque_loss", 0.0, 0.2, (0.75, 0.0, 0.0)),
        Scenario("torso", "torque_loss", 0.5, 0.04, (1.0, 0.0, -0.5)),
    ),
)


def test_plan_by_hand() -> None:
    kind, severity, onset = THREE.plan(0.02)
    assert severity.nonzero().tolist() == [[0, KNEE], [2, 10]]
    assert (severity[0, KNEE], severity[2, 10]) == (1.0, 0.5)
    assert (kind[0, KNEE], kind[2, 10]) == (KINDS.index("locked"), 0)
    assert (onset < NEVER).nonzero().tolist() == [[0, KNEE], [2, 10]]
    assert (onset[0, KNEE], onset[2, 10]) == (5, 2)
    assert THREE.onset(0.02).tolist() == [5, 10, 2]
    assert THREE.plan(0.01)[2][0, KNEE] == 10
    assert THREE.kinds == ("locked", "torque_loss")
    assert THREE.commands().tolist() == [[0.5, 0.0, 0.25], [0.75, 0.0, 0.0], [1.0, 0.0, -0.5]]


def test_files_and_hashes(tmp_path: Path) -> None:
    THREE.save(tmp_path / "three.json")
    again = Scenarios.load(tmp_path / "three.json")
    assert again == THREE
    assert again.hash == THREE.hash == "beb6fde3b7ef"
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "three.json").read_bytes()
    assert replace(THREE, seed=6).hash != THREE.hash
    assert replace(THREE, episodes=THREE.episodes[:2]).hash != THREE.hash


def test_sweep() -> None:
    joints = (*UNITREE_H1.fault_candidates, None)
    sweep = joint_sweep(UNITREE_H1, joints, 4, seed=1)
    sweep.validate()
    assert [e.joint for e in sweep.episodes] == [j for j in joints for _ in range(4)]
    assert sweep.hash == joint_sweep(UNITREE_H1, joints, 4, seed=1).hash
    assert sweep.hash != joint_sweep(UNITREE_H1, joints, 4, seed=2).hash
    for episode in sweep.episodes:
        assert 2 <= episode.onset_s <= 4 and 0.2 <= episode.command[0] <= 1 and abs(episode.command[2]) <= 0.5
        assert episode.severity == (episode.joint is not None)
        assert episode.onset_s / 0.02 == pytest.approx(round(episode.onset_s / 0.02), abs=0.51)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joint": "left_kne"}, "no joint 'left_kne'; did you mean 'left_knee'"),
        ({"kind": "torque_los"}, "no fault kind 'torque_los'; did you mean 'torque_loss'"),
        ({"severity": 1.5}, "scenario 0: severity is from 0 to 1"),
        ({"severity": "high"}, "episodes.0.severity: .* not 'high'"),
        ({"onset_s": -1}, "scenario 0: severity is from 0 to 1 and onset ≥ 0 s, not 1.0, -1"),
        ({"command": [1.0, 0.0]}, "episodes.0.command"),
        ({"command": [1.0, 0.0, float("nan")]}, "three finite numbers"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "wrong.json"
    THREE.save(path)
    data = json.loads(path.read_text())
    data["episodes"][0] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(KoboshiError, match=message):
        Scenarios.load(path)


def test_other_robots_and_no_episodes(tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    replace(THREE, robot="unitree_h2").save(path)
    with pytest.raises(KoboshiError, match="no robot 'unitree_h2'; did you mean 'unitree_h1'"):
        Scenarios.load(path)
    replace(THREE, episodes=()).save(path)
    with pytest.raises(KoboshiError, match="no episodes"):
        Scenarios.load(path)
    with pytest.raises(KoboshiError, match="no file"):
        Scenarios.load(tmp_path / "none.json")
    path.write_text('{"robot": "unitree_h1"')
    with pytest.raises(KoboshiError, match="not valid JSON"):
        Scenarios.load(path)


def following(scenarios: Scenarios, num_envs: int) -> Env:
    cfg = env_cfg()
    follow = EventTerm(events.follow_scenarios, params={"scenarios": scenarios})
    return Env(replace(cfg, num_envs=num_envs, events=cfg.events | {"follow": follow}, episode_length_s=0.3))


def test_an_environment_follows_in_each_episode() -> None:
    env = following(THREE, 3)
    obs = env.reset(THREE.seed)
    for t in range(33):  # two episodes of 15 steps and the beginning of a third
        in_episode = t % 15
        assert torch.equal(obs["critic"][:, 9:12], THREE.commands())
        expected = [1.0 * (in_episode > 5), 0.0, 0.5 * (in_episode > 2)]
        assert obs["fault"].amax(1).tolist() == expected
        obs = env.step(torch.zeros(3, 19)).obs


def test_an_environment_that_does_not_fit() -> None:
    with pytest.raises(KoboshiError, match="3 scenarios need as many environments, not 4"):
        following(THREE, 4).reset(0)
    other = replace(THREE, robot=UNITREE_G1.name, episodes=(replace(THREE.episodes[1]),))
    with pytest.raises(KoboshiError, match="for robot 'unitree_g1', not 'unitree_h1'"):
        following(other, 1).reset(0)
