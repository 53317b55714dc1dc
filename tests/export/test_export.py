"""Exported controllers do what they did under torch; contracts that do not fit are refused; no torch is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from koboshi.deploy import report
from koboshi.deploy.contract import FILE, MODEL, PROGRAM, load_contract
from koboshi.deploy.program import HEALTHY, Program
from koboshi.deploy.senses import Observer, Senses
from koboshi.deploy.simulation import Drive, World, drive
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import ObsTerm
from koboshi.envs.terms import observations
from koboshi.errors import KoboshiError
from koboshi.export.contract import contract_of, robot_xml
from koboshi.export.graph import check_groups
from koboshi.stages import exporting
from koboshi.tasks import make_task


def test_what_the_checks_found_is_small_and_written_down(exported: Path) -> None:
    checked = load_contract(exported)["checked"]
    assert 0 < checked["action_error"] < 1e-5 and 0 < checked["pose_error"] < 1e-4
    assert sorted(path.name for path in exported.iterdir()) == sorted((FILE, MODEL, PROGRAM))
    assert not list(exported.parent.glob(".export-*"))


def test_it_walks_breaks_switches_and_walks_on(exported: Path) -> None:
    program = Program(exported)
    world = World(exported, program)
    found = drive(program, world, (0.5, 0.0, 0.0), 6.0, breaks=[("FL_thigh_joint", 2.0)], real_time=False)
    assert found.fell_at is None and found.vx_rmse < 0.3
    switched = [(when, member) for when, member in found.switches if member != HEALTHY]
    assert switched and 2.0 < switched[0][0] < 2.5
    serving = load_contract(exported)["faults"][switched[0][1]]
    assert "FL_thigh_joint" in serving["joints"] and "torque_loss" in serving["kinds"]
    # The same again: nothing is left of the run before, not even the dead joint.
    again = drive(program, world, (0.5, 0.0, 0.0), 6.0, breaks=[("FL_thigh_joint", 2.0)], real_time=False)
    assert again.errors == found.errors


def test_without_torch(exported: Path) -> None:
    script = (
        "import sys; from koboshi.cli import main\n"
        "sys.argv = ['koboshi', 'deploy', sys.argv[1], '--sim', '--seconds', '1']\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        "assert 'torch' not in sys.modules and 'onnxruntime' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script, str(exported)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "walked for 1.0 s" in done.stdout and "ms at p99" in done.stdout


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["action"]["scale"].__setitem__(0, 0.3), "action"),
        (lambda c: c["joints"].reverse(), "joints"),
        (lambda c: c.__setitem__("control_dt", 0.01), "control_dt"),
        (lambda c: c["observations"]["policy"]["terms"].reverse(), "observations"),
        (lambda c: c["observations"]["policy"].__setitem__("newest_first", True), "observations"),
        (lambda c: c["default_joint_pos"].__setitem__(0, 0.2), "default_joint_pos"),
        (lambda c: c["initial"].clear(), "initial"),
        (lambda c: c["made"].__setitem__("commit", "another"), "made"),
    ],
)
def test_an_edited_contract_is_refused_by_name(exported: Path, tmp_path: Path, change: Any, named: str) -> None:
    folder = tmp_path / "edited"
    shutil.copytree(exported, folder)
    contract = load_contract(folder)
    change(contract)
    (folder / FILE).write_text(yaml.safe_dump(contract))
    with pytest.raises(KoboshiError, match=f"was exported with other {named} than deploy.yaml says"):
        Program(folder)


def test_another_robots_model_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edited"
    shutil.copytree(exported, folder)
    (folder / MODEL).write_text((folder / MODEL).read_text().replace('timestep="0.005"', 'timestep="0.004"'))
    with pytest.raises(KoboshiError, match="robot.xml is not the robot that deploy.yaml was exported with"):
        World(folder, Program(folder))


def test_a_contract_cut_at_any_line_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(exported, folder)
    lines = (exported / FILE).read_text().splitlines(keepends=True)
    last = next(i for i, line in enumerate(lines) if line.startswith("checked"))
    for keep in range(0, last, 3):
        (folder / FILE).write_text("".join(lines[:keep]))
        with pytest.raises(KoboshiError, match="deploy.yaml|exported with other"):
            Program(folder)


def test_senses_that_are_none_are_refused_before_anything_is_remembered(exported: Path) -> None:
    program = Program(exported)
    world = World(exported, program)
    good = world.senses((0.5, 0.0, 0.0))
    first = program.step(good).targets
    program.reset()
    for wrong in (good._replace(joint_pos=good.joint_pos * np.nan), good._replace(joint_vel=good.joint_vel[:1])):
        with pytest.raises(KoboshiError, match="finite numbers, not"):
            program.step(wrong)
    np.testing.assert_array_equal(program.step(good).targets, first)


def test_settings_without_effect(exported: Path) -> None:
    program = Program(exported)
    world = World(exported, program)
    for wrong, named in (
        ({"seconds": 0.0}, "--seconds is above 0"),
        ({"rate": 0.0}, "--rate is above 0"),
        ({"delay_s": -0.1}, "--delay is at least 0"),
        ({"breaks": [("FL_hip_joint", 9.0)]}, "between 0 and 1 s, not at 9"),
        ({"breaks": [("FL_hip_joint", float("nan"))]}, "not at nan"),
    ):
        with pytest.raises(KoboshiError, match=named):
            drive(program, world, (0, 0, 0), **({"seconds": 1.0, "real_time": False} | wrong))  # type: ignore[arg-type]


def test_damaged_and_missing_files(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(KoboshiError, match="is no exported controller: it has no deploy.yaml"):
        Program(tmp_path)
    folder = tmp_path / "damaged"
    shutil.copytree(exported, folder)
    whole = (folder / PROGRAM).read_bytes()
    (folder / PROGRAM).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KoboshiError, match="policy.onnx is damaged"):
        Program(folder)
    (folder / PROGRAM).unlink()
    with pytest.raises(KoboshiError, match="has a deploy.yaml but no policy.onnx"):
        Program(folder)
    (folder / FILE).write_text("format: 99")
    with pytest.raises(KoboshiError, match="has format 99, not 2"):
        Program(folder)
    (folder / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KoboshiError, match="is damaged"):
        Program(folder)
    (folder / FILE).write_text("joints: [")
    with pytest.raises(KoboshiError, match="is damaged"):
        Program(folder)


def test_another_rate_is_refused_unless_asked_for(exported: Path) -> None:
    program = Program(exported)
    world = World(exported, program)
    command = (0.5, 0.0, 0.0)
    with pytest.raises(KoboshiError, match="a loop of 100 Hz; the program was trained at 50 Hz"):
        drive(program, world, command, 1.0, rate=100.0, real_time=False)
    assert drive(program, world, command, 0.2, rate=100.0, anyway=True, real_time=False).seconds == pytest.approx(0.2)
    with pytest.raises(KoboshiError, match="no multiple of physics steps"):
        drive(program, world, command, 1.0, rate=130.0, anyway=True, real_time=False)
    with pytest.raises(KoboshiError, match="no joint 'FL_thigh'; did you mean 'FL_thigh_joint'"):
        drive(program, world, command, 1.0, breaks=[("FL_thigh", 0.1)], real_time=False)
    world.joints.reverse()
    with pytest.raises(KoboshiError, match="joints in the order RR_calf_joint"):
        drive(program, world, command, 1.0, real_time=False)
    table = report.compared(program, World(exported, program), command, 0.1)
    assert "trained at 50 Hz" in table and len(table.splitlines()) == 8


class Recorder:
    """A world of four physics steps a control step that notes what reaches its drives."""

    physics_dt, fallen = 0.005, False

    def __init__(self) -> None:
        self.joints, self.reached = ["a"], list[float]()
        self.data = SimpleNamespace(ctrl=np.array([-1.0]), qpos=np.array([0, 0, 1, 1, 0, 0, 0.0]), qvel=np.zeros(6))

    def reset(self) -> None: ...

    def senses(self, command: object) -> object:
        return command

    def step(self, targets: list[np.ndarray]) -> None:
        self.reached += [float(each[0]) for each in targets]


def test_a_delay_lets_the_old_targets_stand() -> None:
    """Two physics steps late: the first two are those that the drives had."""
    asked = deque([0.0, 1.0, 2.0])
    program = SimpleNamespace(
        contract={"control_dt": 0.02, "joints": ["a"]},
        reset=lambda: None,
        step=lambda senses: SimpleNamespace(targets=np.array([asked.popleft()]), member=-1),
    )
    world = Recorder()
    drive(program, world, (0, 0, 0), 0.06, delay_s=0.01, real_time=False)  # type: ignore[arg-type]
    assert world.reached == [-1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_words_of_a_break_and_of_a_fall() -> None:
    assert report.parse_break("left_knee@3.5") == ("left_knee", 3.5)
    for wrong in ("left_knee", "left_knee@soon"):
        with pytest.raises(KoboshiError, match="is not joint@seconds"):
            report.parse_break(wrong)
    assert Drive(errors=[0.3, -0.4]).vx_rmse == pytest.approx(0.125**0.5)


def calm(name: str) -> EnvCfg:
    return replace(exporting._calm(make_task(name), None), num_envs=1)


@pytest.mark.parametrize("name", ["go2-rough", "h1-walk", "wheelbiped-flat"])
def test_observations_are_those_of_training(name: str) -> None:
    """From an environment's own state, step by step, with histories and groups that begin with others."""
    env = Env(calm(name))
    groups = tuple(group for group in ("policy", "detector") if group in env.obs_spec)
    contract = contract_of(env, groups, [], env.reset(0))
    observer = Observer(contract["observations"], np.array(contract["default_joint_pos"]))
    obs, generator = env.reset(0), torch.Generator().manual_seed(0)
    action = np.zeros(env.action_space.dim)
    for step in range(9):
        state = env.state
        vectors = (state.base_lin_vel, state.base_ang_vel, state.projected_gravity, env.command.value)
        joints = (state.joint_pos, state.joint_vel, state.joint_torque)
        senses = Senses(*(x[0].double().numpy() for x in (*vectors, *joints)))
        found = observer.observe(senses, action)
        for group in groups:
            np.testing.assert_allclose(
                found[group], obs[group].numpy(), atol=2e-5, rtol=1e-5, err_msg=f"{group} {step}"
            )
        drawn = 0.3 * torch.randn(1, env.action_space.dim, generator=generator)
        obs, action = env.step(drawn).obs, drawn[0].double().numpy()


def test_what_no_robot_computes_is_refused() -> None:
    cfg = calm("go2-rough")
    policy = cfg.observations["policy"]
    told = replace(policy, terms=policy.terms | {"height_scan": ObsTerm(observations.height_scan)})
    env = Env(replace(cfg, observations=cfg.observations | {"policy": told}))
    with pytest.raises(KoboshiError, match=r"observation 'policy.height_scan' \(height_scan\) is none that a robot"):
        contract_of(env, ("policy",), [], env.reset(0))


def test_what_meshes_or_beliefs_are_needed_for_is_refused() -> None:
    g1 = calm("g1-walk")
    with pytest.raises(KoboshiError, match="collides with .* meshes, which no single file holds"):
        robot_xml(Env(replace(g1, scene=replace(g1.scene, contacts="body"))))
    told = SimpleNamespace(healthy=SimpleNamespace(actor=SimpleNamespace(groups=("policy", "belief"))), bank=None)
    with pytest.raises(KoboshiError, match="is a specialist"):
        check_groups(g1, told)  # type: ignore[arg-type]
    told.healthy.actor.groups = ("eyes.left",)
    with pytest.raises(KoboshiError, match="sees 'eyes.left', and only groups of numbers"):
        check_groups(g1, told)  # type: ignore[arg-type]


def test_nothing_is_written_where_a_check_fails(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(exporting, "Program", lambda folder: None)
    monkeypatch.setattr(exporting, "action_error", lambda *_: 0.5)
    monkeypatch.setattr(exporting, "pose_error", lambda *_: 0.0)
    with pytest.raises(KoboshiError, match="actions differ from torch's by 0.5, more than 1e-05; nothing was written"):
        exporting.export(shipped, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir())


def test_observer_scales_clips_and_remembers_by_hand() -> None:
    """A term scaled, clipped and kept three steps, oldest first; and a group kept two steps, oldest first."""
    plain = {"joints": None, "scale": 1.0, "clip": None, "history": 1}
    kept = plain | {"name": "command", "func": "velocity_command", "scale": 2.0, "clip": 3.0, "history": 3}
    speeds = plain | {"name": "joint_vel", "func": "joint_vel", "joints": [1]}
    group = {"base": None, "newest_first": False}
    groups = {
        "a": group | {"history_length": 1, "terms": [kept]},
        "b": group | {"history_length": 2, "terms": [speeds]},
    }
    observer, zero = Observer(groups, np.zeros(2)), np.zeros(3)
    found = []
    for k in (1.0, 2.0, -5.0):
        command = np.array([k, 0.0, 0.0])
        senses = Senses(zero, zero, zero, command, np.zeros(2), np.array([9.0, k]), np.zeros(2))
        found.append(observer.observe(senses, np.zeros(2)))
    assert found[0]["a"][0].tolist() == [2, 0, 0] * 3 and found[0]["b"][0].tolist() == [1, 1]
    assert found[2]["a"][0].tolist() == [2, 0, 0, 3, 0, 0, -3, 0, 0] and found[2]["b"][0].tolist() == [2, -5]
    observer.reset()
    assert observer.observe(senses, np.zeros(2))["b"][0].tolist() == [-5, -5]


def test_a_memory_wheels_and_joints_out_of_order(koboshi: Any, tmp_path: Path) -> None:
    """A recurrent policy of a robot whose wheels' actions come after all legs'."""
    small = [
        "env.num_envs=4", "agent.trainer.timesteps=4", "agent.trainer.rollout=2", "agent.network.actor.type=GruCfg",
        "agent.network.actor.units=6", "agent.network.actor.hidden=[6]", "agent.network.critic_hidden=[6]",
    ]  # fmt: skip
    assert koboshi("train", "wheelbiped-flat", "--name", "r", "--root", tmp_path, *small).code == 0
    done = koboshi("export", "wheelbiped-flat/r", "--root", tmp_path)
    assert done.code == 0 and "against torch" in done.out, done.err
    folder = tmp_path / "export" / "wheelbiped-flat-r"
    program = Program(folder)
    assert program.contract["carried"] and program.contract["action"]["joints"] == [0, 1, 2, 4, 5, 6, 3, 7]
    told = program.step(World(folder, program).senses((0.5, 0.0, 0.0)))
    names, targets = program.contract["joints"], dict(zip(program.contract["joints"], told.targets, strict=True))
    default = dict(zip(names, program.contract["default_joint_pos"], strict=True))
    number = dict(zip(program.contract["action"]["joints"], program.action, strict=True))
    for j, name in enumerate(names):
        scale = 5.0 if "wheel" in name else 0.25
        assert targets[name] == pytest.approx(default[name] + scale * number[j], abs=1e-6)
