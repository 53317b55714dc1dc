"""Faults act on physics or on the senses, are labelled to the step, heal, and are undone by a reset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import worlds
from torch import Tensor

from koboshi.envs import Env
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events
from koboshi.faults import KINDS, Fault, FaultsCfg, FaultSchedule, Scenario, Scenarios
from koboshi.faults.kinds import BRAKE_DAMPING, ENCODER_OFFSET, LOCK_PLAY, LOCK_SLACK
from koboshi.robots import UNITREE_H1

J = 19
KNEE, ELBOW, TORSO = (UNITREE_H1.joint_id(name) for name in ("left_knee", "right_elbow", "torso"))
DRIVE = {"actuator_biasprm", "actuator_forcerange", "actuator_gainprm"}
FIELDS = (*sorted(DRIVE), "dof_damping", "jnt_range")


def make(*episodes: list[Fault], **changes: Any) -> Env:
    """One H1 for each list of faults, without noise; no episode ends by itself."""
    cfg = worlds.scripted(worlds.endless(worlds.clean(worlds.h1())), *episodes)
    return Env(replace(cfg, **changes))


def knee(
    kind: Any = "torque_loss", severity: float = 1.0, onset_s: float = 0.0, duration_s: float | None = None
) -> Fault:
    return Fault("left_knee", kind, severity, onset_s, duration_s)


def elbow(
    kind: Any = "torque_loss", severity: float = 1.0, onset_s: float = 0.0, duration_s: float | None = None
) -> Fault:
    return Fault("right_elbow", kind, severity, onset_s, duration_s)


def push_hard(env: Env, size: float = 10.0) -> Tensor:
    return torch.full((env.num_envs, J), size)


def test_torque_loss_takes_its_share_of_every_torque() -> None:
    """Below the limit too: the same target, angle and speed give (1 - s) of the sound joint's torque."""
    env = make([], [knee(severity=0.25)], [knee("braking", 0.5)], [knee()])
    env.reset(0)
    env.step(push_hard(env, 0.05))
    law, own = env.robot.law, env.joints
    q, v, asked = env.qpos[:, own.qpos][:, KNEE], env.qvel[:, own.dof][:, KNEE], env.ctrl[:, own.actuator][:, KNEE]
    sound = law.control[KNEE] * asked + law.position[KNEE] * q + law.velocity[KNEE] * v
    env.backend.forward()
    assert sound.abs().max() < 100, "far from the limit of 300"
    given = env.backend.read("actuator_force")[:, KNEE]
    torch.testing.assert_close(given.float(), sound.float() * torch.tensor([1, 0.75, 0.5, 0]), rtol=1e-4, atol=1e-3)


def test_torque_loss_scales_the_force_limit() -> None:
    """By hand: the knee's limit is 300 N·m, the elbow's 40; a dead joint gives no torque at all."""
    env = make([knee()], [knee(severity=0.75)], [elbow(severity=0.5)], [])
    env.reset(0)
    force = env.backend.read("actuator_force")
    for sign in (1.0, -1.0):
        step = env.step(push_hard(env, 10 * sign))
        assert force[:, KNEE].tolist() == pytest.approx([0, sign * 75, sign * 300, sign * 300])
        assert force[:, ELBOW].tolist() == pytest.approx([sign * 40, sign * 40, sign * 20, sign * 40])
        torch.testing.assert_close(step.obs["detector"][:, 69:], force.float())
        torch.testing.assert_close(env.state.joint_torque, force.float())


def test_a_locked_joint_stays_where_it_was() -> None:
    """Within ±0.01 rad and what MuJoCo's soft limits give."""
    env = make([], [elbow("locked", onset_s=0.02)])
    env.reset(0)
    env.step(push_hard(env, 0.0))
    start = env.state.joint_pos[:, ELBOW]
    path = []
    for t in range(25):
        env.step(push_hard(env, 2.0 if t < 12 else -2.0))
        path.append(env.state.joint_pos[:, ELBOW] - start)
    free, locked = torch.stack(path).abs().amax(0).tolist()
    assert locked < LOCK_SLACK + 0.05 and free > 0.5
    limits, middle = env.backend.expand("jnt_range")[1, 1 + ELBOW], start[1].item()
    assert limits.tolist() == pytest.approx([middle - 0.01, middle + 0.01], abs=1e-6)


def test_limited_range_shrinks_around_where_the_joint_is() -> None:
    env = make([], [elbow("limited_range", 0.8)])
    env.reset(0)
    at = env.qpos[1, 7 + ELBOW].item()
    low, high = env.model.jnt_range[1 + ELBOW]
    env.step(push_hard(env, 0.0))
    limits = env.backend.expand("jnt_range")
    expected = [at + 0.2 * (low - at), at + 0.2 * (high - at)]
    assert limits[1, 1 + ELBOW].tolist() == pytest.approx(expected, abs=1e-6)
    assert limits[0, 1 + ELBOW].tolist() == [low, high]
    for _ in range(25):
        env.step(push_hard(env, 4.0))
    assert env.qpos[1, 7 + ELBOW] < expected[1] + 0.1
    assert env.qpos[0, 7 + ELBOW] > expected[1] + 0.3


def test_a_loosely_locked_joint_has_play() -> None:
    """By hand: 0.01 + 0.3 · (1 − 0.25) rad to either side."""
    env = make([elbow("locked", 0.25)])
    env.reset(0)
    at = env.qpos[0, 7 + ELBOW].item()
    env.step(push_hard(env, 0.0))
    limits, play = env.backend.expand("jnt_range")[0, 1 + ELBOW].tolist(), LOCK_SLACK + 0.75 * LOCK_PLAY
    assert limits == pytest.approx([at - play, at + play], abs=1e-6) and play == pytest.approx(0.235)


def test_braking_adds_damping_and_takes_torque() -> None:
    env = make([], [elbow("braking", 0.5)], [elbow("braking")])
    env.reset(0)
    start = env.qpos[:, 7 + ELBOW].clone()
    env.step(push_hard(env))
    assert env.backend.read("actuator_force")[:, ELBOW].tolist() == pytest.approx([40, 20, 0])
    for _ in range(4):
        env.step(push_hard(env))
    damping = env.backend.expand("dof_damping")
    assert damping[:, 6 + ELBOW].tolist() == pytest.approx([1, 1 + 0.5 * BRAKE_DAMPING, 1 + BRAKE_DAMPING])
    assert (damping[0] != damping[1]).sum() == 1, "and nobody else's"
    moved = (env.qpos[:, 7 + ELBOW] - start).abs()
    assert moved[1] < 0.6 * moved[0]


def random_actions(env: Env, steps: int) -> Tensor:
    return torch.randn(steps, env.num_envs, J, generator=torch.Generator().manual_seed(0))


def test_a_drive_with_an_offset_encoder_holds_another_position() -> None:
    """By hand: stiffness (target − q − offset) is what a sound drive does with the target less the offset."""
    env, twin = make([knee("encoder_offset", 0.5)]), make([])
    env.reset(0), twin.reset(0)
    scale = 0.5
    for action in random_actions(env, 10):
        shifted = action.clone()
        shifted[0, KNEE] -= 0.5 * ENCODER_OFFSET / scale
        env.step(action), twin.step(shifted)
    torch.testing.assert_close(env.qpos, twin.qpos, atol=1e-6, rtol=0)
    torch.testing.assert_close(env.state.joint_torque, twin.state.joint_torque, atol=1e-3, rtol=0)
    assert (env.qpos[0, 7 + KNEE] - make([]).default_joint_pos[KNEE]).abs() > 0.01


def test_a_drive_with_a_frozen_encoder_is_blind() -> None:
    """By hand: its torque is stiffness (target − where it was), whatever the joint does; half frozen, half of that."""
    env = make([knee("encoder_freeze")], [knee("encoder_freeze", 0.5)])
    env.reset(0)
    held = env.state.joint_pos[:, KNEE].clone()
    stiffness, damping = 200.0, 5.0
    pos = []
    for action in 0.3 * random_actions(env, 8):
        env.step(action)
        target = env.default_joint_pos[KNEE] + 0.5 * action[0, KNEE]
        asked = stiffness * (target - held[0]).item()
        assert env.state.joint_torque[0, KNEE].item() == pytest.approx(asked, abs=1e-3)
        pos.append(env.state.joint_pos[1, KNEE].item())
        bias = env.fields.live("actuator_biasprm")[1, KNEE, :3].tolist()
        assert bias == pytest.approx([-0.5 * stiffness * held[1].item(), -0.5 * stiffness, -0.5 * damping])
    assert max(pos) - min(pos) > 0.05


@pytest.mark.parametrize("kind", ["encoder_freeze", "encoder_offset", "torque_sensor_loss"])
def test_what_faulty_sensors_show(kind: Any) -> None:
    """Against the truth, step by step: half frozen, half off, half lost; the critic and the others see it all."""
    env = make([], [knee(kind, 0.5, 0.04)])
    env.reset(0)
    pos, vel, torque = 12 + KNEE, 31 + KNEE, 69 + KNEE
    held = 0.0
    for t, action in enumerate(random_actions(env, 8)):
        if t == 2:
            held = env.state.joint_pos[1, KNEE].item()
        obs, state = env.step(action).obs, env.state
        true = {pos: state.joint_pos - env.default_joint_pos, vel: state.joint_vel, torque: state.joint_torque}
        expected = {column: value[1, KNEE].item() for column, value in true.items()}
        if t >= 2 and kind == "encoder_freeze":
            expected[pos] += 0.5 * (held - state.joint_pos[1, KNEE].item())
            expected[vel] *= 0.5
        elif t >= 2 and kind == "encoder_offset":
            expected[pos] += 0.5 * ENCODER_OFFSET
        elif t >= 2:
            expected[torque] *= 0.5
        for column, value in expected.items():
            assert obs["detector"][1, column].item() == pytest.approx(value, abs=1e-5)
        assert torch.equal(obs["detector"][:, :69], obs["policy"])
        wrong = (obs["critic"][:, :69] != obs["policy"]).nonzero().tolist()
        shown = {"encoder_freeze": [pos, vel], "encoder_offset": [pos], "torque_sensor_loss": []}[kind]
        assert wrong == ([[1, column] for column in shown] if t >= 2 else [])
        assert obs["fault"][1, KNEE] == 0.5 * (t >= 2)


def test_a_lost_torque_sensor_changes_nothing_else() -> None:
    env, twin = make([knee("torque_sensor_loss")]), make([])
    env.reset(0), twin.reset(0)
    for action in random_actions(env, 5):
        env.step(action), twin.step(action)
    assert torch.equal(env.qpos, twin.qpos)


def test_an_encoder_that_is_off_and_then_freezes() -> None:
    """Drive and senses agree on what is shown: where it was, and the offset on top."""
    env = make([knee("encoder_offset"), knee("encoder_freeze", onset_s=0.04)])
    env.reset(0)
    held = None
    for t, action in enumerate(0.3 * random_actions(env, 6)):
        held = env.state.joint_pos[0, KNEE].clone() if t == 2 else held
        obs = env.step(action).obs["policy"]
        if held is not None:
            shown = held + ENCODER_OFFSET
            assert obs[0, 12 + KNEE].item() == pytest.approx((shown - env.default_joint_pos[KNEE]).item(), abs=1e-5)
            target = env.default_joint_pos[KNEE] + 0.5 * action[0, KNEE]
            assert env.state.joint_torque[0, KNEE].item() == pytest.approx((200 * (target - shown)).item(), abs=1e-3)


def test_a_frozen_encoder_shows_what_it_showed() -> None:
    """Its bias included: no jump when it freezes."""
    bias = EventTerm(events.randomise_encoder_bias, params={"range": (0.2, 0.2)})
    cfg = worlds.h1()
    env = make([knee("encoder_freeze", onset_s=0.04)], events=cfg.events | {"bias": bias})
    obs, shown = env.reset(0), []
    for _ in range(6):
        shown.append(obs["policy"][0, 12 + KNEE].item())
        obs = env.step(push_hard(env, 0.5)).obs
    assert shown[0] != shown[1] != shown[2]
    assert shown[3:] == pytest.approx([shown[2]] * 3, abs=1e-6)


@pytest.mark.parametrize("onset", [0, 1, 3])
def test_labels_are_exact_to_the_step(onset: int) -> None:
    """A fault due at control step k is in force during it, and shows in the observation after it."""
    first, second = knee("torque_loss", 0.5, 0.02 * onset), knee("torque_loss", 1.0, 0.02 * (onset + 2))
    env = make([], [first], [second])
    obs = env.reset(0)
    force = env.backend.read("actuator_force")
    for t in range(7):  # t control steps are done
        expected = torch.zeros(3, J)
        expected[1, KNEE], expected[2, KNEE] = 0.5 * (t > onset), 1.0 * (t > onset + 2)
        assert torch.equal(obs["fault"], expected)
        assert torch.equal(env.faults.severity, expected)
        assert torch.equal(env.faults.active, expected.amax(1) > 0)
        assert torch.equal(env.faults.kind, torch.where(expected > 0, KINDS.index("torque_loss"), -1))
        obs = env.step(push_hard(env)).obs
        assert (force[1, KNEE] <= 150) == (t >= onset), "the force is gone in the step that follows the onset"
        assert (force[2, KNEE] == 0) == (t >= onset + 2)


def test_several_faults_with_their_own_times() -> None:
    """The truth step by step, by hand: (joint, kind, from step, to step, severity)."""
    plan = [
        (KNEE, "torque_loss", 1, 4, 1.0),
        (ELBOW, "braking", 3, 99, 0.6),
        (TORSO, "encoder_offset", 2, 3, 0.3),
        (KNEE, "braking", 3, 6, 0.4),
    ]
    faults = [
        Fault(UNITREE_H1.joint_names[j], kind, severity, 0.02 * start, None if stop == 99 else 0.02 * (stop - start))
        for j, kind, start, stop, severity in plan
    ]
    env = make([], faults)
    env.reset(0)
    for t in range(8):
        env.step(push_hard(env, 0.0))
        severity, kind = torch.zeros(2, J), torch.full((2, J), -1)
        for j, name, start, stop, level in plan:
            if start <= t < stop and level > severity[1, j]:
                severity[1, j], kind[1, j] = level, KINDS.index(name)
        assert torch.equal(env.faults.severity, severity), t
        assert torch.equal(env.faults.kind, kind), t
        limit, damping = env.backend.expand("actuator_forcerange")[1, :, 1], env.backend.expand("dof_damping")[1, 6:]
        knee_limit = 0 if 1 <= t < 4 else 0.6 * 300 if t in (4, 5) else 300
        assert limit[[KNEE, ELBOW]].tolist() == pytest.approx([knee_limit, 0.4 * 40 if t >= 3 else 40])
        assert damping[ELBOW].item() == pytest.approx(1 + 0.6 * BRAKE_DAMPING * (t >= 3))
        assert damping[KNEE].item() == pytest.approx(1 + 0.4 * BRAKE_DAMPING * (3 <= t < 6)), "both act at once"


def test_healing_gives_the_torque_back() -> None:
    env = make([knee(onset_s=0.02, duration_s=0.06)])
    env.reset(0)
    torque = [env.step(push_hard(env)).obs["detector"][0, 69 + KNEE].item() for _ in range(7)]
    assert torque == pytest.approx([300, 0, 0, 0, 300, 300, 300])
    assert torch.equal(env.fields.live("actuator_forcerange"), env.fields.randomised("actuator_forcerange"))


def test_a_fault_comes_and_goes() -> None:
    """By hand: dead for 2 of every 3 steps from the second on, and each time it holds on to where the joint is then."""
    coming = (knee(onset_s=0.02, duration_s=0.04), elbow("locked", onset_s=0.02, duration_s=0.04))
    env = make(*([replace(fault, period_s=0.06)] for fault in coming))
    env.reset(0)
    torque, middles = [], set()
    for _ in range(7):
        torque.append(env.step(push_hard(env)).obs["detector"][0, 69 + KNEE].item())
        low, high = env.fields.live("jnt_range")[1, 1 + ELBOW].tolist()
        middles |= {round((low + high) / 2, 6)} if high - low < 0.1 else set()
    assert torque == pytest.approx([300, 0, 0, 300, 0, 0, 300])
    assert len(middles) == 2


def test_a_fault_lies_over_what_was_randomised() -> None:
    """Its end gives back the randomised value, and a value drawn anew under it stays faulted."""
    strength = EventTerm(events.randomise_strength, params={"range": (0.5, 0.8)})
    env = make([knee(severity=0.5, duration_s=0.06)], [], events=worlds.h1().events | {"strength": strength})
    env.reset(0)
    limit = env.backend.expand("actuator_forcerange")[:, KNEE, 1]
    drawn = env.fields.randomised("actuator_forcerange")[:, KNEE, 1].clone()
    assert (drawn < 240).all() and (drawn > 150).all() and drawn[0] != drawn[1]
    assert torch.equal(limit, drawn), "not yet"
    env.step(push_hard(env))
    assert limit.tolist() == pytest.approx([0.5 * drawn[0].item(), drawn[1].item()])
    events.randomise_strength(env, torch.tensor([True, False]), (0.9, 0.9))
    assert limit.tolist() == pytest.approx([0.5 * 270, drawn[1].item()]), "drawn anew, still faulted"
    for _ in range(3):
        env.step(push_hard(env))
    assert limit.tolist() == pytest.approx([270, drawn[1].item()]), "the end gives back what was drawn, not nominal"


def test_a_cleared_fault_gives_back_what_was_randomised() -> None:
    """At an episode's end too, where nothing randomises anew."""
    strength = EventTerm(events.randomise_strength, "startup", {"range": (0.5, 0.8)})
    cfg = worlds.h1()
    env = make([knee()], [], events=cfg.events | {"strength": strength}, terminations=cfg.terminations)
    env.reset(0)
    drawn = env.fields.randomised("actuator_forcerange").clone()
    env.step(push_hard(env, 0.0))
    assert env.fields.live("actuator_forcerange")[0, KNEE].tolist() == [0, 0]
    env.episode_step[:] = env.cfg.max_episode_length - 1
    assert env.step(push_hard(env, 0.0)).truncated.all()
    assert torch.equal(env.fields.live("actuator_forcerange"), drawn)
    none = torch.full((2, 1), 2**31 - 1)
    env.step(push_hard(env, 0.0))
    assert env.faults.active.tolist() == [True, False]
    zero = torch.zeros(2, 1, dtype=torch.int64)
    plan = {"joint": zero, "which": zero, "level": zero.float(), "start": none, "stop": none, "period": none}
    env.faults.set_plan(torch.tensor([True, False]), **plan)
    assert torch.equal(env.fields.live("actuator_forcerange"), drawn)
    assert not env.faults.active.any() and (env.faults.kind == -1).all()


def test_everything_is_undone() -> None:
    """All kinds at once; one environment begins anew, then all."""
    broken = [Fault(UNITREE_H1.joint_names[j], kind, 0.7) for j, kind in enumerate(KINDS)]
    cfg = worlds.h1()
    env, twin = (make(faults, [], terminations=cfg.terminations) for faults in (broken, []))
    env.reset(0), twin.reset(0)
    nominal = {name: env.fields.nominal(name).clone() for name in FIELDS}
    for _ in range(3):
        env.step(push_hard(env, 0.5))
    assert all((env.fields.live(name)[0] != nominal[name]).any() for name in FIELDS)
    assert all(torch.equal(env.fields.live(name)[1], nominal[name]) for name in FIELDS)
    env.episode_step[0] = env.cfg.max_episode_length - 1
    step = env.step(push_hard(env, 0.5))
    assert step.truncated.tolist() == [True, False]
    assert step.final_obs["fault"][0].count_nonzero() == len(KINDS), "the last step is labelled"
    assert not step.obs["fault"].any()
    assert all(torch.equal(env.fields.live(name)[0], nominal[name]) for name in FIELDS)
    obs, well = env.reset(0), twin.reset(0)
    assert all(torch.equal(obs[group], well[group]) for group in obs)


def test_locked_in_the_next_episode_is_where_it_is_then() -> None:
    """What an earlier episode held on to is forgotten."""
    cfg = worlds.h1()
    env = make(
        [elbow("locked", onset_s=0.04)], terminations={"time_out": cfg.terminations["time_out"]}, episode_length_s=0.1
    )
    env.reset(0)
    middles = []
    for _ in range(10):
        before = env.qpos[0, 7 + ELBOW].item()
        env.step(push_hard(env, 1.0))
        if env.episode_step[0] == 3:
            limits = env.fields.live("jnt_range")[0, 1 + ELBOW]
            assert limits.mean().item() == pytest.approx(before, abs=1e-6)
            middles.append(before)
    assert len(middles) == 2 and middles[0] != middles[1]


def test_faults_of_episodes_that_begin_late() -> None:
    """Ages are random at first, and onsets count from there: nobody breaks, or heals, before having walked."""
    cfg = worlds.endless(worlds.clean(worlds.h1(num_envs=8)))
    faults = FaultsCfg(joints=("right_elbow",), kinds=("locked",), duration_s=(0.04, 0.04))
    schedule = FaultSchedule(faults, onset_s=(0.06, 0.06))
    env = Env(replace(cfg, faults=schedule, episode_length_s=10.0, random_initial_length=True))
    env.reset(1)
    assert (env.episode_step > 250).any() and not (env.episode_step > 250).all()
    broken = []
    for _ in range(6):
        env.step(push_hard(env, 1.0))
        broken.append(env.faults.active.sum().item())
    assert broken == [0, 0, 0, 8, 8, 0]


def test_the_first_fault_of_several_that_is_alone_in_force() -> None:
    cfg = worlds.endless(worlds.clean(worlds.h1(num_envs=2)))
    pair = (Fault("right_elbow", onset_s=0.02), Fault("left_elbow", onset_s=0.06))
    episodes = (Scenario(pair, (0.0, 0.0, 0.0), 0.02), Scenario(pair[1:], (0.0, 0.0, 0.0), 0.06))
    env = Env(replace(cfg, faults=Scenarios("unitree_h1", 0, episodes)))
    env.reset(0)
    alone = []
    for _ in range(4):
        env.step(push_hard(env, 0.0))
        alone.append(env.faults.first_alone.tolist())
    assert alone == [[False, False], [True, False], [True, False], [False, True]]


@pytest.mark.parametrize(
    ("joint", "sign"), [("left_hip_roll", 1), ("right_hip_roll", -1), ("right_knee", 1), ("torso", 1)]
)
def test_an_offset_is_the_other_sides_mirror_image(joint: str, sign: int) -> None:
    cfg = worlds.endless(worlds.clean(worlds.h1(num_envs=1)))
    fault = Fault(joint, "encoder_offset", onset_s=0.0)
    env = Env(replace(cfg, faults=Scenarios("unitree_h1", 0, (Scenario((fault,), (0.0, 0.0, 0.0), 0.0),))))
    env.reset(0)
    before = env.fields.live("actuator_biasprm").clone()
    env.step(push_hard(env, 0.0))
    j = env.robot.joint_id(joint)
    shown = env.faults.sense(env.state.joint_pos) - env.state.joint_pos
    assert shown[0].nonzero().flatten().tolist() == [j] and shown[0, j].item() == pytest.approx(sign * 0.3, abs=1e-6)
    moved = env.fields.live("actuator_biasprm")[0, j, 0] - before[0, j, 0]
    assert moved.item() == pytest.approx(sign * 0.3 * env.robot.law.position[j], rel=1e-5)


def test_faults_of_a_robot_with_wheels() -> None:
    """Columns are the robot's own, though a ball comes before it: a dead wheel, a braked one, a locked mast."""
    cfg = worlds.endless(worlds.clean(worlds.rover(worlds.SECOND)))
    plans = [
        [Fault("left_wheel", "torque_loss")],
        [Fault("right_wheel", "braking", 0.5)],
        [Fault("mast", "locked")],
        [Fault("vane", "encoder_offset"), Fault("vane", "torque_loss", 0.5)],
    ]
    env = Env(worlds.scripted(cfg, *plans))
    env.reset(0)
    at = env.state.joint_pos[2, 2].item()
    for _ in range(10):
        env.step(torch.tensor([[1.0, 10.0, 1.0, 1.0]]).repeat(4, 1))
    torque = env.state.joint_torque
    assert torque[0, 0] == 0 and torque[1, 0] != 0 and torque[0, 1] != 0
    assert torque[:, 3].tolist() == pytest.approx([1, 1, 1, 0.5])
    damping = env.fields.live("dof_damping")
    changed = (damping != env.fields.nominal("dof_damping")).nonzero().tolist()
    assert changed == [[1, 6 + 6 + 1]], "the ball's six come first, then the base's"
    assert env.state.joint_pos[2, 2].item() == pytest.approx(at, abs=0.06)
    assert env.state.joint_pos[0, 2].item() > at + 0.1
    assert env.faults.kind[3, 3] == KINDS.index("encoder_offset"), "the gravest is named"


def test_without_faults_nothing_is_expanded() -> None:
    """None, a schedule that breaks nobody and scenarios without faults cost no field and no random numbers."""
    plain = worlds.h1(num_envs=2)
    never = replace(plain, faults=FaultSchedule(FaultsCfg(kinds=KINDS), probability=0.0))
    runs = []
    for cfg in (plain, never):
        env = Env(cfg)
        assert env.fields.state_dict() == {}
        env.reset(0)
        runs.append(worlds.random_steps(env, 5))
        assert not env.faults.severity.any() and (env.faults.kind == -1).all() and not env.faults.active.any()
    worlds.assert_same_steps(*runs)
    assert Env(worlds.scripted(plain, [], [])).fields.state_dict() == {}


@pytest.mark.parametrize(
    ("kinds", "fields"),
    [
        (("torque_loss",), DRIVE),
        (("locked", "limited_range"), {"jnt_range"}),
        (("braking",), DRIVE | {"dof_damping"}),
        (("encoder_freeze", "encoder_offset"), {"actuator_biasprm"}),
        (("torque_sensor_loss",), set()),
    ],
)
def test_only_fields_that_may_change_are_expanded(kinds: Any, fields: set[str]) -> None:
    env = Env(worlds.h1(num_envs=2, faults=FaultSchedule(FaultsCfg(kinds=kinds), 0.5)))
    assert set(env.fields.state_dict()) == fields


def test_a_joint_stays_locked_where_it_was_when_another_fault_joins() -> None:
    env = make([elbow("locked", onset_s=0.02), elbow("braking", 0.5, 0.06)])
    env.reset(0)
    limits = []
    for _ in range(5):
        env.step(push_hard(env, 1.0))
        limits.append(env.fields.live("jnt_range")[0, 1 + ELBOW].tolist())
    assert limits[1] == limits[2] == limits[3] == limits[4] != limits[0]


def test_the_shortest_fault_lasts_a_control_step() -> None:
    env = make([knee(onset_s=0.04, duration_s=0.001)])
    env.reset(0)
    assert [env.step(push_hard(env)).obs["fault"][0, KNEE].item() for _ in range(5)] == [0, 0, 1, 0, 0]
