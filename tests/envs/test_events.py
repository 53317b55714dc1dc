"""Events: when they happen, to whom, what they change, and that physics and the returned observation feel it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
import worlds
from torch import Tensor

from koboshi import config
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events, observations
from koboshi.errors import KoboshiError
from koboshi.tasks import make_task, velocity

N = 6
GAINS = {"stiffness": (0.8, 0.9), "damping": (1.1, 1.3)}


def with_events(cfg: EnvCfg | None = None, **terms: EventTerm | None) -> Env:
    cfg = worlds.go2(num_envs=N) if cfg is None else cfg
    return Env(worlds.clean(replace(cfg, events=cfg.events | terms)))


def rows(*which: int) -> Tensor:
    mask = torch.zeros(N, dtype=torch.bool)
    mask[list(which)] = True
    return mask


class Diary:
    """An event that notes when it happened to whom."""

    def __init__(self) -> None:
        self.notes: list[tuple[int, list[bool]]] = []

    def __call__(self, env: Env, mask: Tensor) -> None:
        self.notes.append((env.total_steps, mask.tolist()))

    def times(self, row: int) -> list[int]:
        return [t for t, mask in self.notes if mask[row]]


def test_startup_once_and_reset_for_those_that_begin() -> None:
    once, again = Diary(), Diary()
    env = with_events(once=EventTerm(once, mode="startup"), again=EventTerm(again))
    env.reset(0)
    env.step(worlds.zeros(env))
    env.episode_step[4] = env.cfg.max_episode_length - 1
    env.step(worlds.zeros(env))
    assert once.notes == [(0, [True] * N)]
    assert again.notes == [(0, [True] * N), (2, rows(4).tolist())]


def test_intervals_and_their_clocks_start_anew_at_a_reset() -> None:
    """Every 5 control steps exactly; an episode that ends after 7 has the next one 5 after its reset."""
    diary = Diary()
    interval = EventTerm(diary, mode="interval", interval_s=(0.1, 0.1))
    env = with_events(worlds.endless(worlds.go2(num_envs=N)), note=interval)
    env.cfg = replace(env.cfg, terminations=worlds.go2().terminations)
    env.reset(0)
    for t in range(20):
        env.step(worlds.zeros(env))
        if t == 5:
            env.episode_step[2] = env.cfg.max_episode_length - 1  # it ends in the next step, the seventh
    assert diary.times(0) == [5, 10, 15, 20]
    assert diary.times(2) == [5, 12, 17]


def test_intervals_are_within_their_range() -> None:
    diary = Diary()
    env = with_events(worlds.endless(worlds.go2(num_envs=N)), note=EventTerm(diary, "interval", {}, (0.1, 0.2)))
    env.reset(0)
    for _ in range(80):
        env.step(worlds.zeros(env))
    gaps = [b - a for row in range(N) for a, b in zip([0, *diary.times(row)], diary.times(row), strict=False)]
    assert min(gaps) >= 5 and max(gaps) <= 11
    assert {6, 8, 10} <= set(gaps)
    assert len({tuple(diary.times(row)) for row in range(N)}) == N, "each environment has its own clock"


@pytest.mark.parametrize("due", [True, False])
def test_a_push_is_in_the_very_observation_that_is_returned(due: bool) -> None:
    """A twin without pushes sees the same but for the base's horizontal velocity."""
    interval = (0.06, 0.06) if due else (9.0, 9.0)
    push = EventTerm(events.push, mode="interval", interval_s=interval, params={"velocity": 2.0})
    env, twin = with_events(push=push), with_events()
    env.reset(0), twin.reset(0)
    twin.qpos[:], twin.qvel[:] = env.qpos, env.qvel
    twin.state.refresh_motion(rows())
    for _ in range(2):
        env.step(worlds.zeros(env)), twin.step(worlds.zeros(twin))
    pushed, calm = env.step(worlds.zeros(env)), twin.step(worlds.zeros(twin))
    assert torch.equal(env.qpos, twin.qpos)
    change = env.qvel - twin.qvel
    assert torch.equal(change[:, 2:], torch.zeros_like(change[:, 2:])), "horizontal only"
    assert (change[:, :2].abs() <= 2.0).all()
    assert (change[:, :2].abs().amax(1) > 0.05).all() == due
    layout = {entry.name: entry.place.slice for entry in env.layouts["critic"]}
    shown = pushed.obs["critic"] - calm.obs["critic"]
    expected = change[:, :3].float().norm(dim=1)
    torch.testing.assert_close(shown[:, layout["base_lin_vel"]].norm(dim=1), expected, atol=1e-5, rtol=1e-4)
    for name in ("joint_pos", "joint_vel", "base_ang_vel", "projected_gravity", "foot_contact"):
        assert not shown[:, layout[name]].any(), name
    assert pushed.final_obs is pushed.obs
    assert torch.equal(pushed.reward, calm.reward), "rewards are those of the step before the push"
    assert torch.equal(env.state.heading, twin.state.heading)


def test_nobody_is_pushed_in_the_step_that_ends_the_episode() -> None:
    """Due at step 5; row 1 is cut off in that very step: its last observation is its own, and its next push later."""
    diary = Diary()

    def push(env: Env, mask: Tensor) -> None:
        diary(env, mask)
        events.push(env, mask, 3.0)

    env = with_events(push=EventTerm(push, mode="interval", interval_s=(0.1, 0.1)))
    twin = with_events(push=EventTerm(Diary(), mode="interval", interval_s=(0.1, 0.1)))
    for which in (env, twin):
        which.reset(0)
        which.episode_step[1] = which.cfg.max_episode_length - 5
    for _ in range(5):
        pushed, calm = env.step(worlds.zeros(env)), twin.step(worlds.zeros(twin))
    assert pushed.truncated.tolist() == rows(1).tolist()
    assert diary.notes == [(5, (~rows(1)).tolist())]
    assert torch.equal(pushed.final_obs["critic"][1], calm.final_obs["critic"][1])
    assert not torch.equal(pushed.final_obs["critic"][0], calm.final_obs["critic"][0])
    for _ in range(5):
        env.step(worlds.zeros(env))
    assert diary.times(1) == [10]


def test_resets_are_within_their_ranges() -> None:
    env = with_events(worlds.go2(num_envs=256), reset_joints=EventTerm(events.reset_joints, params={"scale": (0.5, 1)}))
    env.reset(0)
    assert env.qvel[:, :6].abs().max() <= 0.5 and env.qvel[:, :6].abs().amax(0).min() > 0.45
    assert not env.qvel[:, 6:].any()
    heading = env.state.heading
    assert heading.min() < -3 and heading.max() > 3 and (heading.abs() < 0.5).any()
    torch.testing.assert_close(env.state.projected_gravity, torch.tensor([[0.0, 0.0, -1.0]]).repeat(256, 1))
    factor = env.qpos[:, 7:].float() / env.default_joint_pos
    assert factor.min() >= 0.5 and factor.min() < 0.55 and factor.max() <= 1 and factor.max() > 0.95


ALL = slice(None)
TRUNK, FL_CALF, RR_CALF = 1, 4, 13
# (event, params, field, the index of what changes, least and greatest value: as such, added, or as a factor)
RANDOMISATIONS: list[tuple[Any, dict[str, Any], str, tuple, tuple[float, float], str]] = [
    (events.randomise_friction, {"range": (0.3, 0.9)}, "geom_friction", (ALL, ALL, 0), (0.3, 0.9), "is"),
    (events.randomise_mass, {"add": (-1.0, 2.0)}, "body_mass", (ALL, [TRUNK]), (-1.0, 2.0), "adds"),
    (
        events.randomise_mass,
        {"add": (0.05, 0.1), "bodies": ("FL_calf", "RR_calf")},
        "body_mass",
        (ALL, [FL_CALF, RR_CALF]),
        (0.05, 0.1),
        "adds",
    ),
    (events.randomise_com, {"shift": (-0.05, 0.04)}, "body_ipos", (ALL, TRUNK), (-0.05, 0.04), "adds"),
    (events.randomise_gains, GAINS, "actuator_gainprm", (ALL, ALL, 0), (0.8, 0.9), "times"),
    (events.randomise_gains, GAINS, "actuator_biasprm", (ALL, ALL, [1, 2]), (0.8, 1.3), "times"),
    (events.randomise_strength, {"range": (0.5, 0.7)}, "actuator_forcerange", (ALL,), (0.5, 0.7), "times"),
    (events.randomise_armature, {"range": (1.5, 2.0)}, "dof_armature", (ALL, slice(6, 18)), (1.5, 2.0), "times"),
    (events.randomise_joint_friction, {"add": (0.1, 0.3)}, "dof_frictionloss", (ALL, slice(6, 18)), (0.1, 0.3), "adds"),
]


def change(env: Env, field: str, index: tuple, how: str) -> Tensor:
    """(N, …) how far a field is from its nominal value."""
    value, nominal = env.fields.live(field), env.fields.nominal(field)
    whole = nominal.expand(N, *nominal.shape)
    return {"is": value, "adds": value - whole, "times": value / whole}[how][index].flatten(1)


@pytest.mark.parametrize(("event", "params", "field", "index", "bounds", "how"), RANDOMISATIONS)
def test_randomisations(event: Any, params: dict, field: str, index: tuple, bounds: tuple, how: str) -> None:
    """Exactly that part of the field, within the range, differently for each row, and only in the mask's rows."""
    env = with_events(random=EventTerm(event, params=params))
    fields = {name for name, _ in event.randomises}
    assert set(env.fields.state_dict()) == fields and field in fields
    nominal = env.fields.nominal(field)
    assert torch.equal(nominal, torch.from_numpy(getattr(env.model, field)))
    env.reset(0)
    value = env.fields.live(field)
    found, (low, high) = change(env, field, index, how), bounds
    assert found.min() >= low - 1e-6 and found.max() <= high + 1e-6
    assert found.max() - found.min() > 0.4 * (high - low)
    assert len({tuple(row.tolist()) for row in found}) == N, "each environment has its own"
    part = torch.zeros(value.shape, dtype=torch.bool)
    part[index] = True
    assert torch.equal(value != nominal, part), "all of the part, and nothing but the part"
    before = value.clone()
    event(env, rows(2, 5), **params)
    assert torch.equal((value != before).flatten(1).any(1), rows(2, 5))


def test_drawing_again_starts_from_nominal() -> None:
    """A hundred draws do not wander off."""
    terms = {str(i): EventTerm(e, params=p) for i, (e, p, *_) in enumerate(RANDOMISATIONS)}
    env = with_events(**terms)
    env.reset(0)
    for _ in range(100):
        env.events.reset(rows(*range(N)))
    for _, _, field, index, (low, high), how in RANDOMISATIONS:
        found = change(env, field, index, how)
        assert found.min() >= low - 1e-6 and found.max() <= high + 1e-6, field


def test_mass_scales_inertia_and_never_vanishes() -> None:
    env = with_events(mass=EventTerm(events.randomise_mass, params={"add": (-99.0, 5.0)}))
    subtree = env.backend.expand("body_subtreemass")
    env.reset(1)
    mass, inertia = env.fields.live("body_mass")[:, 1], env.fields.live("body_inertia")[:, 1]
    nominal_mass, nominal_inertia = env.fields.nominal("body_mass")[1], env.fields.nominal("body_inertia")[1]
    assert (mass >= 0.1 * nominal_mass - 1e-9).all() and (mass < 0.2 * nominal_mass).any()
    torch.testing.assert_close(inertia / nominal_inertia, (mass / nominal_mass)[:, None].expand(N, 3))
    others = torch.from_numpy(env.model.body_mass)[2:].sum()
    torch.testing.assert_close(subtree[:, 1], mass + others)


def test_gains_keep_the_servo_a_servo() -> None:
    """Stiffness changes what pulls and what is pulled against alike, so that the target stays where it is."""
    env = with_events(gains=EventTerm(events.randomise_gains, params={"stiffness": (0.5, 2.0)}))
    env.reset(0)
    gain, bias = env.fields.live("actuator_gainprm"), env.fields.live("actuator_biasprm")
    assert torch.equal(gain[:, :, 0], -bias[:, :, 1])
    assert not gain[:, :, 1:].any() and not bias[:, :, [0, *range(3, 10)]].any()


def test_gains_of_wheels_and_motors() -> None:
    """A velocity servo's only gain is its damping; a motor that gives the torque asked for has none to change."""
    params = {"stiffness": (0.5, 0.6), "damping": (1.5, 2.0)}
    env = with_events(worlds.rover(num_envs=N), gains=EventTerm(events.randomise_gains, params=params))
    env.reset(0)
    gain, bias = env.fields.live("actuator_gainprm"), env.fields.live("actuator_biasprm")
    wheels, vane = slice(0, 2), 3
    assert torch.equal(gain[:, wheels, 0], -bias[:, wheels, 2])
    assert gain[:, wheels, 0].min() >= 3.0 and gain[:, wheels, 0].max() <= 4.0
    assert not bias[:, wheels, :2].any()
    assert torch.equal(gain[:, vane, 0], torch.ones(N).double()) and not bias[:, vane].any()


def slid(friction: float) -> Tensor:
    """(N,) m that a Go2's feet slide in half a second after a push of 1 m/s."""
    grip = EventTerm(events.randomise_friction, params={"range": (friction, friction)})
    env = with_events(worlds.endless(worlds.go2(num_envs=N, events={})), grip=grip)
    env.reset(0)
    for _ in range(25):
        env.step(worlds.zeros(env))
    start = env.state.foot_pos[:, :, 0].mean(1)
    env.qvel[:, 0] += 1.0
    for _ in range(25):
        env.step(worlds.zeros(env))
    return env.state.foot_pos[:, :, 0].mean(1) - start


def test_friction_is_felt() -> None:
    assert slid(0.05).min() > 0.3
    assert slid(1.2).max() < 0.15


def test_strength_is_felt() -> None:
    weak = EventTerm(events.randomise_strength, params={"range": (0.25, 0.25)})
    env = with_events(worlds.endless(worlds.go2(num_envs=N)), weak=weak)
    env.reset(0)
    env.step(torch.full((N, 12), 10.0))
    torch.testing.assert_close(env.state.joint_torque, (0.25 * env.effort_limit).expand(N, 12))


def test_dry_friction_is_felt() -> None:
    """A mast in the air that is let go of swings less where there is more of it."""
    moved = []
    for add in (0.0, 5.0):
        term = EventTerm(events.randomise_joint_friction, params={"add": (add, add)})
        env = with_events(worlds.endless(worlds.rover(num_envs=N, events={})), dry=term)
        env.reset(0)
        env.qvel[:, env.joints.dof][:, 2] = 4.0
        env.step(worlds.zeros(env))
        moved.append((env.state.joint_pos[:, 2] - 0.1).abs())
    assert (moved[1] < 0.8 * moved[0]).all() and moved[0].min() > 0.01


def test_a_force_moves_the_whole_robot_until_it_is_drawn_anew() -> None:
    """Free fall: momentum grows by (weight + force) · time; 6 N up and 6 N forward on everybody."""
    env = with_events(force=EventTerm(events.external_force, params={"force": (6.0, 6.0)}))
    env.reset(0)
    env.qpos[:, 2] += 5.0
    env.backend.forward()
    before = _momentum(env)
    for _ in range(2):
        env.step(worlds.zeros(env))
    gained = _momentum(env) - before
    weight = 9.81 * env.robot_mass
    torch.testing.assert_close(gained[:, 0], torch.full((N,), 6.0 * 0.04), rtol=0.03, atol=0)
    torch.testing.assert_close(gained[:, 2], torch.full((N,), (6.0 - weight) * 0.04), rtol=0.03, atol=0)
    # In the base's frame it is as long, and of the same height where the base is level.
    torch.testing.assert_close(observations.external_force(env).norm(dim=1), torch.full((N,), 6.0 * 3**0.5))
    env.place(rows(2), "base_quat", torch.tensor([[0.5**0.5, 0.0, 0.0, 0.5**0.5]]).expand(N, 4))  # faces +y
    env.state.refresh_motion(torch.zeros(N, dtype=torch.bool))
    torch.testing.assert_close(observations.external_force(env)[2], torch.tensor([6.0, -6.0, 6.0]))
    events.external_force(env, rows(3), (1.0, 1.0))
    assert env.external_force[:, 0].tolist() == [6.0, 6.0, 6.0, 1.0, 6.0, 6.0]


def test_a_force_is_no_event_of_the_startup() -> None:
    with pytest.raises(KoboshiError, match="'force' is undone by every reset: its mode is reset or interval"):
        with_events(force=EventTerm(events.external_force, "startup"))


def _momentum(env: Env) -> Tensor:
    """(N, 3) kg m/s of each whole robot."""
    data, found = mujoco.MjData(env.model), []
    for qpos, qvel in zip(env.qpos.numpy(), env.qvel.numpy(), strict=True):
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(env.model, data)
        mujoco.mj_subtreeVel(env.model, data)
        found.append(data.subtree_linvel[env.model.body(env.robot.base_body).id] * env.robot_mass)
    return torch.from_numpy(np.array(found)).float()


def test_encoder_bias_fools_the_senses_and_not_the_drive() -> None:
    term = EventTerm(events.randomise_encoder_bias, params={"range": (-0.1, 0.1)})
    env, twin = with_events(bias=term), with_events()
    env.reset(0), twin.reset(0)
    assert env.encoder_bias.abs().max() <= 0.1 and env.encoder_bias.abs().max() > 0.08
    assert len({tuple(row.tolist()) for row in env.encoder_bias}) == N
    twin.qpos[:], twin.qvel[:] = env.qpos, env.qvel
    where = env.obs_spec["policy"].place("joint_pos")
    for _ in range(3):
        obs, true = env.step(worlds.zeros(env)).obs, twin.step(worlds.zeros(twin)).obs
        assert torch.equal(env.qpos, twin.qpos), "physics does not know"
        torch.testing.assert_close(obs["policy"][:, where] - true["policy"][:, where], env.encoder_bias)
        assert torch.equal(obs["critic"][:, where], true["critic"][:, where]), "the critic sees the truth"
    before = env.encoder_bias.clone()
    events.randomise_encoder_bias(env, rows(3), (-0.1, 0.1))
    assert (env.encoder_bias != before).any(1).tolist() == rows(3).tolist()


def test_constants_follow_only_for_those_whose_mass_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One environment that ends does not cost a computation for all."""
    env = with_events(mass=EventTerm(events.randomise_mass), friction=EventTerm(events.randomise_friction))
    asked: list[list[bool]] = []
    compute = env.backend.set_const

    def note(mask: Tensor) -> None:
        asked.append(mask.tolist())
        compute(mask)

    monkeypatch.setattr(env.backend, "set_const", note)
    env.reset(0)
    assert asked and all(map(all, asked))
    asked.clear()
    env.step(worlds.zeros(env))
    env.episode_step[4] = env.cfg.max_episode_length - 1
    env.step(worlds.zeros(env))
    assert asked == [rows(4).tolist()]


def test_constants_follow_what_an_interval_randomised() -> None:
    term = EventTerm(events.randomise_mass, "interval", {"add": (1.0, 2.0)}, (0.04, 0.04))
    env = with_events(mass=term)
    subtree = env.backend.expand("body_subtreemass")
    env.reset(0)
    before = subtree[:, 1].clone()
    for _ in range(2):
        env.step(worlds.zeros(env))
    added = env.fields.live("body_mass")[:, 1] - env.fields.nominal("body_mass")[1]
    assert added.min() >= 1.0
    torch.testing.assert_close(subtree[:, 1], before + added)


def test_randomisations_wait_until_they_are_asked_for() -> None:
    """By default the worlds of a task are all alike; each term, asked for by its key, changes what it says."""
    names = [name for name, term in velocity.randomisations().items() if term is not None and not term.active]
    assert len(names) == 10
    task = make_task("h1-dead-joint")
    small = ["env.num_envs=2", "env.sim.iterations=3"]
    env = Env(config.override(task, small).env)
    env.reset(0)
    assert not env.fields.state_dict() and not env.encoder_bias.any() and not env.external_force.any()
    assert env.events.state_dict() == {}
    wanted = [f"env.events.{name}.active=true" for name in names]
    env = Env(config.override(task, [*small, *wanted, "env.events.strength.params.range=[0.5,0.5]"]).env)
    env.reset(0)
    for field in ("geom_friction", "body_mass", "body_ipos", "actuator_gainprm", "dof_armature", "dof_frictionloss"):
        values = env.fields.randomised(field)
        assert not torch.equal(values[0], values[1]), field
    strength = env.fields.randomised("actuator_forcerange")[:, :, 1] / env.effort_limit
    assert bool((strength == 0.5).all()) and env.encoder_bias.any() and env.external_force.all()
    assert list(env.events.state_dict()) == ["push"]


def test_headings_to_begin_with() -> None:
    env = with_events(reset_base=EventTerm(events.reset_base, params={"heading": (-0.2, 0.3), "velocity": 0.0}))
    env.reset(0)
    assert env.state.heading.min() >= -0.2 - 1e-6 and env.state.heading.max() <= 0.3 + 1e-6
    assert env.state.heading.std() > 0.05
    assert env.qvel.abs().max() == 0
