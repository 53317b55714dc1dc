"""Frozen scenarios: files, hashes, the sweep, and the environment that follows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import worlds

from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, NEVER, CommandRanges, Fault, FaultsCfg, Scenario, Scenarios, sweep
from koboshi.robots import UNITREE_G1, UNITREE_H1

KNEE, TORSO = UNITREE_H1.joint_id("left_knee"), UNITREE_H1.joint_id("torso")
THREE = Scenarios(
    "unitree_h1",
    5,
    (
        Scenario((Fault("left_knee", "locked", 1.0, 0.1),), (0.5, 0.0, 0.25), 0.1),
        Scenario((), (0.75, 0.0, 0.0), 0.2),
        Scenario(
            (Fault("torso", "torque_loss", 0.5, 0.04), Fault("left_knee", "braking", 0.7, 0.1, 0.06)),
            (1.0, 0.0, -0.5),
            0.04,
        ),
    ),
)


def test_what_they_say() -> None:
    assert THREE.onset(0.02).tolist() == [5, 10, 2]
    assert THREE.onset(0.01).tolist() == [10, 20, 4]
    assert THREE.steps(0.02, 1.0) == 10 + 50
    assert THREE.kinds == ("braking", "locked", "torque_loss")
    assert THREE.commands().tolist() == [[0.5, 0.0, 0.25], [0.75, 0.0, 0.0], [1.0, 0.0, -0.5]]
    assert THREE.faulty().nonzero().tolist() == [[0, KNEE], *sorted([[2, KNEE], [2, TORSO]])]


def test_files_and_hashes(tmp_path: Path) -> None:
    THREE.save(tmp_path / "three.json")
    again = Scenarios.load(tmp_path / "three.json")
    assert again == THREE
    assert again.hash == THREE.hash == "ec1be104ad6c"
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "three.json").read_bytes()
    assert replace(THREE, seed=6).hash != THREE.hash
    assert replace(THREE, episodes=THREE.episodes[:2]).hash != THREE.hash
    later = replace(THREE.episodes[2], faults=(replace(THREE.episodes[2].faults[0], duration_s=9.0),))
    assert replace(THREE, episodes=(*THREE.episodes[:2], later)).hash != THREE.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joint": "left_kne"}, "scenario 0: no joint 'left_kne'; did you mean 'left_knee'"),
        ({"kind": "torque_los"}, "scenario 0: no fault kind 'torque_los'; did you mean 'torque_loss'"),
        ({"severity": 1.5}, "scenario 0: fault of left_knee: severity is above 0 and at most 1"),
        ({"severity": 0.0}, "scenario 0: fault of left_knee: severity is above 0"),
        ({"severity": "high"}, "episodes.0.faults.0.severity: .* not 'high'"),
        ({"onset_s": -1}, "onset ≥ 0 s, duration above 0 s, not 1.0, -1"),
        ({"onset_s": float("inf")}, "onset ≥ 0 s, duration above 0 s, not 1.0, inf"),
        ({"duration_s": 0}, "duration above 0 s, not 1.0, 0.1, 0"),
        ({"duration_s": float("nan")}, "duration above 0 s, not 1.0, 0.1, nan"),
    ],
)
def test_wrong_faults_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "wrong.json"
    THREE.save(path)
    data = json.loads(path.read_text())
    data["episodes"][0]["faults"][0] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(KoboshiError, match=message):
        Scenarios.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": [1.0, 0.0]}, "episodes.0.command"),
        ({"command": [1.0, 0.0, float("nan")]}, "scenario 0: a command is three finite numbers"),
        ({"start_s": -0.5}, "scenario 0: it counts from a time ≥ 0 s on, not -0.5"),
        ({"start_s": float("inf")}, "scenario 0: it counts from a time ≥ 0 s on, not inf"),
        ({"faults": "left_knee"}, "episodes.0.faults"),
    ],
)
def test_wrong_episodes_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
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


def test_a_range_fault_on_a_joint_without_a_range_is_refused(tmp_path: Path) -> None:
    wheel = Scenarios("rover", 0, (Scenario((Fault("left_wheel", "locked"),), (0.0, 0.0, 0.0), 0.0),))
    message = "scenario 0: a fault 'locked' cannot act on joint 'left_wheel' of rover, which has no range"
    with pytest.raises(KoboshiError, match=message):
        wheel.validate()
    wheel.save(tmp_path / "wheel.json")
    with pytest.raises(KoboshiError, match=message):
        Scenarios.load(tmp_path / "wheel.json")
    with pytest.raises(KoboshiError, match=message):
        Env(worlds.rover(num_envs=1, faults=wheel))


def test_sweep() -> None:
    joints = (*UNITREE_H1.fault_candidates, None)
    found = sweep(UNITREE_H1, joints, 4, seed=1)
    found.validate()
    names = [episode.faults[0].joint if episode.faults else None for episode in found.episodes]
    assert names == [j for j in joints for _ in range(4)]
    assert found == sweep(UNITREE_H1, joints, 4, seed=1) and found.hash == sweep(UNITREE_H1, joints, 4, seed=1).hash
    assert found.hash != sweep(UNITREE_H1, joints, 4, seed=2).hash
    torch.manual_seed(77)
    assert found == sweep(UNITREE_H1, joints, 4, seed=1), "of its own seed alone"
    for episode in found.episodes:
        x, y, yaw = episode.command
        assert 2 <= episode.start_s <= 4 and 0.2 <= x <= 1 and y == 0 and abs(yaw) <= 0.5
        for fault in episode.faults:
            assert (fault.kind, fault.severity, fault.duration_s) == ("torque_loss", 1.0, None)
            assert fault.onset_s == episode.start_s
    assert len({episode.command for episode in found.episodes}) == len(found.episodes)


def test_sweep_of_several_faults_at_once() -> None:
    cfg = FaultsCfg(kinds=("torque_loss", "braking"), severity=(0.3, 0.9), count=(2, 3), duration_s=(0.5, 1.5))
    commands = CommandRanges((-1.0, -0.5), (0.25, 0.25), (0.0, 0.0))
    joints = ("left_knee", "torso", "right_knee", "left_elbow")
    found = sweep(UNITREE_H1, joints, 10, 3, faults=cfg, commands=commands, onset_s=(1.0, 5.0))
    found.validate()
    numbers = set()
    for i, episode in enumerate(found.episodes):
        names = [fault.joint for fault in episode.faults]
        assert names[0] == joints[i // 10] and len(set(names)) == len(names) and set(names) <= set(joints)
        numbers.add(len(names))
        assert episode.start_s == min(fault.onset_s for fault in episode.faults)
        for k, fault in enumerate(episode.faults):
            assert fault.kind == cfg.kinds[(i % 10 + k) % 2], "in turn, within an episode too"
            assert 0.3 <= fault.severity <= 0.9 and 1 <= fault.onset_s <= 5
            assert fault.duration_s is not None and 0.5 <= fault.duration_s <= 1.5
        assert -1 <= episode.command[0] <= -0.5 and episode.command[1:] == (0.25, 0.0)
    assert numbers == {2, 3}
    assert any(len({fault.onset_s for fault in episode.faults}) > 1 for episode in found.episodes)
    assert (
        found.hash
        == sweep(UNITREE_H1, joints, 10, 3, faults=cfg, commands=commands, onset_s=(1.0, 5.0)).hash
        != sweep(UNITREE_H1, joints, 10, 4, faults=cfg, commands=commands, onset_s=(1.0, 5.0)).hash
    )


def test_sweep_of_joints_that_break_alike() -> None:
    cfg = FaultsCfg(kinds=("torque_loss", "braking"), severity=(0.3, 0.9), count=(2, 3), alike=0.5)
    found = sweep(UNITREE_H1, ("left_knee", "torso", "right_knee", "left_elbow"), 50, 3, faults=cfg).episodes
    alike = [len({(fault.kind, fault.severity) for fault in episode.faults}) == 1 for episode in found]
    assert 80 < sum(alike) < 120
    assert {episode.faults[0].kind for episode, same in zip(found, alike, strict=True) if same} == set(cfg.kinds)
    assert any(len({fault.onset_s for fault in episode.faults}) > 1 for episode in found), "each at its own moment"


def test_sweep_of_joints_that_are_dead() -> None:
    cfg = FaultsCfg(kinds=("locked", "torque_loss"), severity=(0.3, 1.0), count=(1, 3), dead=0.5)
    found = sweep(UNITREE_H1, ("left_knee", "torso"), 100, 3, faults=cfg).episodes
    dead = [{(fault.kind, fault.severity) for fault in episode.faults} == {("torque_loss", 1.0)} for episode in found]
    assert 80 < sum(dead) < 120


def test_sweep_of_faults_that_come_and_go() -> None:
    """Each joint breaks even where none is the least number; a fault's period is its duration and a pause."""
    cfg = FaultsCfg(count=(0, 2), duration_s=(0.5, 1.0), pause_s=(0.25, 0.3))
    found = sweep(UNITREE_H1, ("left_knee", "torso"), 10, 3, faults=cfg)
    found.validate()
    assert {len(episode.faults) for episode in found.episodes} == {1, 2}
    for fault in (fault for episode in found.episodes for fault in episode.faults):
        assert fault.period_s is not None and fault.duration_s is not None
        assert 0.25 <= round(fault.period_s - fault.duration_s, 6) <= 0.3


def test_the_times_of_a_fault_that_comes_and_goes() -> None:
    """By hand, at 20 ms a step: from step 5 on, 3 steps of every 10; the shortest period is a step more."""
    fault = Fault("left_knee", onset_s=0.1, duration_s=0.06, period_s=0.2)
    assert fault.planned(0.02) == (5, 8, 10)
    assert list(fault.times(0.02, 26)) == [(5, 8), (15, 18), (25, 28)] and list(fault.times(0.02, 5)) == []
    assert list(Fault("left_knee", onset_s=0.1).times(0.02, 1000)) == [(5, NEVER)]
    assert Fault("left_knee", duration_s=0.06, period_s=0.061).planned(0.02) == (0, 3, 4)
    with pytest.raises(KoboshiError, match="lasts less than its period, not 0.2 s of 0.2 s"):
        Fault("left_knee", duration_s=0.2, period_s=0.2).check(UNITREE_H1)
    with pytest.raises(KoboshiError, match="lasts less than its period, not None s of 0.2 s"):
        Fault("left_knee", period_s=0.2).check(UNITREE_H1)


def test_command_ranges_that_descend_are_refused() -> None:
    with pytest.raises(KoboshiError, match="ang_vel_z: the lower bound 1.0 is above the upper bound -1.0"):
        CommandRanges(ang_vel_z=(1.0, -1.0)).validate()


def test_an_environment_follows_in_each_episode() -> None:
    """Onset, healing, kinds and commands of THREE; two episodes of 15 steps and the beginning of a third."""
    env = Env(worlds.clean(worlds.h1(num_envs=3, faults=THREE, episode_length_s=0.3)))
    obs = env.reset(THREE.seed)
    for t in range(33):
        k = t % 15  # control steps done in this episode
        assert torch.equal(obs["critic"][:, 9:12], THREE.commands())
        severity, kind = torch.zeros(3, 19), torch.full((3, 19), -1)
        for row, joint, name, level, begins, ends in (
            (0, KNEE, "locked", 1.0, 5, 99),
            (2, TORSO, "torque_loss", 0.5, 2, 99),
            (2, KNEE, "braking", 0.7, 5, 8),
        ):
            if begins < k <= ends:
                severity[row, joint], kind[row, joint] = level, KINDS.index(name)
        assert torch.equal(obs["fault"], severity), t
        assert torch.equal(env.faults.kind, kind), t
        obs = env.step(torch.zeros(3, 19)).obs


def test_commands_of_scenarios_are_never_drawn_anew_nor_turned() -> None:
    cfg = worlds.h1(num_envs=3, faults=THREE)
    command = replace(cfg.command, resampling_time_s=(0.02, 0.04), heading=worlds.HEADING)
    env = Env(worlds.endless(replace(cfg, command=command)))
    env.reset(0)
    for _ in range(10):
        env.step(torch.zeros(3, 19))
        assert torch.equal(env.command.value, THREE.commands())


def test_an_environment_that_does_not_fit() -> None:
    with pytest.raises(KoboshiError, match="3 scenarios need as many environments, not 4"):
        Env(worlds.h1(num_envs=4, faults=THREE))
    other = replace(THREE, robot=UNITREE_G1.name, episodes=THREE.episodes[1:2])
    with pytest.raises(KoboshiError, match="for robot 'unitree_g1', not 'unitree_h1'"):
        Env(worlds.h1(num_envs=1, faults=other))
