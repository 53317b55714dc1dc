"""Who breaks, how and when: by chance or by the environment's index, within the ranges asked for."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from koboshi.config import override
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, FaultLayer, FaultsCfg, FaultSchedule, check_fault
from koboshi.faults.held_out import held_out_pairs
from koboshi.faults.layer import NEVER
from koboshi.robots import UNITREE_H1, JointMap, Robot, physics_spec
from koboshi.sim import ModelFields, make_backend

J, DT = 19, 0.02
ANKLES = UNITREE_H1.joint_ids(".*_ankle")


def layer(schedule: FaultSchedule, num_envs: int = 64, robot: Robot = UNITREE_H1) -> FaultLayer:
    model = physics_spec(robot).compile()
    backend = make_backend("cpu", model, num_envs)
    return FaultLayer(schedule, robot, JointMap(model, robot), backend, ModelFields(backend), DT)


def everyone(num_envs: int = 64) -> Tensor:
    return torch.ones(num_envs, dtype=torch.bool)


def draw(faults: FaultLayer, seed: int = 0) -> None:
    faults.restart(everyone(len(faults.severity)), torch.Generator().manual_seed(seed))


def planned(faults: FaultLayer) -> Tensor:
    """(N, S) bool: slots that hold a fault."""
    return faults.start < NEVER


@st.composite
def schedules(make: st.DrawFn) -> FaultSchedule:
    pair = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple)
    joints = make(st.none() | st.lists(st.sampled_from(UNITREE_H1.joint_names), min_size=4, unique=True).map(tuple))
    faults = FaultsCfg(
        joints=joints,
        kinds=make(st.lists(st.sampled_from(KINDS), min_size=1, unique=True).map(tuple)),
        count=make(st.tuples(st.integers(0, 4), st.integers(1, 4)).map(sorted).map(tuple)),
        severity=make(pair),
        duration_s=make(st.none() | pair),
    )
    if faults.duration_s is not None:
        faults = replace(faults, pause_s=make(st.none() | pair))
    by_index = make(st.booleans())
    return FaultSchedule(
        faults, make(st.sampled_from([0.5, 1.0])), tuple(10 * t for t in make(pair)), count_by_index=by_index
    )


@settings(max_examples=25, deadline=None)
@given(schedule=schedules(), seed=st.integers(0, 2**31))
def test_ranges_are_respected(schedule: FaultSchedule, seed: int) -> None:
    cfg = schedule.faults
    cfg.validate(), schedule.validate()
    faults = layer(schedule, 16)
    draw(faults, seed)
    breaks = planned(faults)
    level, start, stop = faults.level[breaks], faults.start[breaks], faults.stop[breaks]
    assert (level >= cfg.severity[0] - 1e-6).all() and (level <= cfg.severity[1] + 1e-6).all()
    first, last = (round(t / DT) for t in schedule.onset_s)
    assert (start >= first).all() and (start <= last).all()
    if cfg.duration_s is None:
        assert (stop == NEVER).all()
    else:
        shortest, longest = (max(1, round(t / DT)) for t in cfg.duration_s)
        assert (stop - start >= shortest).all() and (stop - start <= longest).all()
    assert (faults.stop[~breaks] == NEVER).all() and (faults.period[~breaks] == NEVER).all()
    if cfg.pause_s is None:
        assert (faults.period == NEVER).all()
    else:
        shortest, longest = (max(1, round(t / DT)) for t in cfg.pause_s)
        pause = faults.period[breaks] - (stop - start)
        assert (pause >= shortest).all() and (pause <= longest).all()
    assert {KINDS[k] for k in faults.which[breaks].tolist()} <= set(cfg.kinds)
    allowed = cfg.joints or UNITREE_H1.fault_candidates
    assert {UNITREE_H1.joint_names[j] for j in faults.joint[breaks].tolist()} <= set(allowed)
    number = breaks.sum(1)
    assert ((number == 0) | ((number >= cfg.count[0]) & (number <= cfg.count[1]))).all()
    assert bool((number > 0).all()) or schedule.probability < 1 or cfg.count[0] == 0
    if schedule.count_by_index and schedule.probability == 1:
        assert number.tolist() == [cfg.count[0] + i % (cfg.count[1] - cfg.count[0] + 1) for i in range(16)]
    for row in range(16):
        names = faults.joint[row][breaks[row]].tolist()
        assert len(set(names)) == len(names), "no joint twice"


def test_every_candidate_number_and_end_occurs() -> None:
    cfg = FaultsCfg(count=(1, 3), kinds=("torque_loss", "braking"), severity=(0.4, 0.6), duration_s=(0.04, 0.1))
    faults = layer(FaultSchedule(cfg, 0.5, (1.0, 1.1)))
    joints, onsets, numbers, kinds, lasts, levels = torch.zeros(J), set(), torch.zeros(4), set(), set(), []
    for seed in range(20):
        draw(faults, seed)
        breaks = planned(faults)
        joints.index_add_(0, faults.joint[breaks], torch.ones(int(breaks.sum())))
        onsets |= set(faults.start[breaks].tolist())
        numbers += torch.bincount(breaks.sum(1), minlength=4)
        kinds |= set(faults.which[breaks].tolist())
        lasts |= set((faults.stop - faults.start)[breaks].tolist())
        levels.append(faults.level[breaks])
    assert joints[ANKLES].sum() == 0
    others = joints[[j for j in range(J) if j not in ANKLES]]
    assert (others / others.mean() - 1).abs().max() < 0.5, "all alike"
    assert onsets == {50, 51, 52, 53, 54, 55}
    assert lasts == {2, 3, 4, 5}
    assert kinds == {KINDS.index("torque_loss"), KINDS.index("braking")}
    share = numbers / numbers.sum()
    assert share[0].item() == pytest.approx(0.5, abs=0.05)
    assert share[1:].tolist() == pytest.approx([1 / 6] * 3, abs=0.04)
    assert torch.cat(levels).min() < 0.41 and torch.cat(levels).max() > 0.59


def test_only_the_rows_of_the_mask_are_drawn() -> None:
    faults = layer(FaultSchedule(FaultsCfg()))
    mask = torch.zeros(64, dtype=torch.bool)
    mask[[3, 9]] = True
    faults.restart(mask, torch.Generator().manual_seed(0))
    assert planned(faults).any(1).nonzero().flatten().tolist() == [3, 9]
    before = faults.joint.clone(), faults.start.clone()
    faults.restart(mask & (torch.arange(64) == 3), torch.Generator().manual_seed(5))
    assert torch.equal(faults.start[9], before[1][9]) and torch.equal(faults.joint[9], before[0][9])
    assert not torch.equal(faults.start[3], before[1][3])


def test_groups_follow_the_index() -> None:
    groups = (("left_knee", "right_knee"), ("torso",), ("left_elbow", "right_elbow", "left_ankle"))
    faults = layer(FaultSchedule(FaultsCfg(), groups=groups), 12)
    expected = [groups[i // 4][i % len(groups[i // 4])] for i in range(12)]
    for seed in range(2):
        draw(faults, seed)
        assert planned(faults).shape == (12, 1) and planned(faults).all()
        assert [UNITREE_H1.joint_names[j] for j in faults.joint[:, 0].tolist()] == expected
    with pytest.raises(KoboshiError, match="12 environments cannot be divided among 5 groups"):
        layer(FaultSchedule(FaultsCfg(), groups=(("torso",),) * 5), 12)


def test_beside_an_own_joint_others_break_where_several_are_asked_for() -> None:
    groups = (("left_knee", "right_knee"), ("torso",))
    faults = layer(FaultSchedule(FaultsCfg(count=(1, 3)), groups=groups), 64)
    own = torch.tensor([UNITREE_H1.joint_id(groups[i // 32][i % len(groups[i // 32])]) for i in range(64)])
    allowed = torch.tensor([UNITREE_H1.joint_id(name) for name in UNITREE_H1.fault_candidates])
    draw(faults, 0)
    assert torch.equal(faults.joint[:, 0], own) and torch.isin(faults.joint, allowed).all()
    assert all(len(set(row)) == 3 for row in faults.joint.tolist())
    assert len(faults.joint[:, 1].unique()) > 8, "the others are drawn"
    assert (faults.start[:, :1] <= faults.start).all(), "and break later, or the own member would never act"
    broken = planned(faults)
    assert broken[:, 0].all() and set(broken.sum(1).tolist()) == {1, 2, 3}


def test_the_first_fault_follows_the_odds() -> None:
    """Two faults three to one, by the environment; what breaks beside them says the schedule."""
    faults = layer(FaultSchedule(FaultsCfg(kinds=("torque_loss", "locked"), count=(1, 2))), 400)
    knee, elbow = (UNITREE_H1.joint_id(f"left_{name}") for name in ("knee", "elbow"))
    dead, locked = KINDS.index("torque_loss"), KINDS.index("locked")
    faults.odds = torch.zeros(400, len(KINDS), J)
    faults.odds[:200, dead, knee], faults.odds[:200, locked, elbow] = 3.0, 1.0
    faults.odds[200:, locked, knee] = 0.01
    draw(faults, 0)
    first = faults.which[:, 0] * J + faults.joint[:, 0]
    assert (first[200:] == locked * J + knee).all()
    share = (first[:200] == dead * J + knee).float().mean().item()
    assert set(first[:200].tolist()) == {dead * J + knee, locked * J + elbow} and share == pytest.approx(0.75, abs=0.1)
    assert (faults.joint[:, 1] != faults.joint[:, 0]).all() and len(faults.joint[:, 1].unique()) > 8
    assert set(faults.which[:, 1].tolist()) == {dead, locked}
    assert (faults.start[:, 0] <= faults.start[:, 1]).all(), "the first fault comes first"


def test_what_a_schedule_may_draw_first() -> None:
    kinds = ("locked", "braking")
    groups = (("left_knee", "right_knee"), ("torso",))
    for schedule, names in (
        (FaultSchedule(FaultsCfg(kinds=kinds)), UNITREE_H1.fault_candidates),
        (FaultSchedule(FaultsCfg(kinds=kinds, count=(1, 2)), groups=groups), ("left_knee", "right_knee", "torso")),
    ):
        drawn = layer(schedule, 8).drawn
        assert {UNITREE_H1.joint_names[j] for j in drawn.any(0).nonzero().flatten().tolist()} == set(names)
        assert {KINDS[k] for k in drawn.any(1).nonzero().flatten().tolist()} == set(kinds)
        assert drawn.sum() == 2 * len(names)


def test_groups_break_by_their_probability_too() -> None:
    schedule = FaultSchedule(FaultsCfg(kinds=("braking",), severity=(0.3, 0.3)), 0.25, (1.0, 1.0), (("torso",),))
    faults, share = layer(schedule), 0.0
    for seed in range(20):
        draw(faults, seed)
        share += planned(faults).float().mean().item() / 20
    assert share == pytest.approx(0.25, abs=0.04)
    breaks = planned(faults)
    assert (faults.start[breaks] == 50).all() and faults.level.unique().tolist() == pytest.approx([0.3])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (FaultSchedule(FaultsCfg(), probability=1.5), "probability is from 0 to 1, not 1.5"),
        (FaultSchedule(FaultsCfg(), onset_s=(-1.0, 2.0)), "onsets are ≥ 0 s"),
        (FaultSchedule(FaultsCfg(), onset_s=(3.0, 2.0)), "onsets are ≥ 0 s, ascending"),
        (FaultSchedule(FaultsCfg(), onset_s=(3.0, float("inf"))), "onsets are ≥ 0 s, ascending"),
        (FaultSchedule(FaultsCfg(), groups=()), "groups name at least one joint each"),
        (FaultSchedule(FaultsCfg(), groups=(("torso",), ())), "groups name at least one joint each"),
        (FaultSchedule(FaultsCfg(severity=(0.5, 0.2))), r"ascending, not \(0.5, 0.2\)"),
        (
            FaultSchedule(FaultsCfg(severity=(0.0, 0.2))),
            r"severity is above 0 and at most 1, ascending, not \(0.0, 0.2",
        ),
        (FaultSchedule(FaultsCfg(severity=(0.5, 2.0))), r"at most 1, ascending, not \(0.5, 2.0\)"),
        (FaultSchedule(FaultsCfg(count=(-1, 1))), "count is at least 0, ascending"),
        (FaultSchedule(FaultsCfg(count=(0, 0))), "count is at least 0, ascending and up to 1 or more"),
        (FaultSchedule(FaultsCfg(count=(2, 1))), "count is at least 0, ascending and up to 1 or more, not"),
        (FaultSchedule(FaultsCfg(duration_s=(1.0, 1.0), pause_s=(0.0, 1.0))), "pause_s is above 0 s, ascending"),
        (FaultSchedule(FaultsCfg(pause_s=(0.5, 1.0))), "pause_s needs faults.duration_s: what never ends"),
        (FaultSchedule(FaultsCfg(), groups=(("torso",),), count_by_index=True), "count_by_index and groups both"),
        (FaultSchedule(FaultsCfg(duration_s=(0.0, 1.0))), "duration_s is above 0 s, ascending"),
        (FaultSchedule(FaultsCfg(duration_s=(2.0, 1.0))), "duration_s is above 0 s, ascending"),
        (FaultSchedule(FaultsCfg(duration_s=(2.0, float("inf")))), "duration_s is above 0 s, ascending"),
        (FaultSchedule(FaultsCfg(kinds=("torque_los",))), "no fault kind 'torque_los'; did you mean 'torque_loss'"),
        (FaultSchedule(FaultsCfg(kinds=())), "kinds are at least one"),
        (FaultSchedule(FaultsCfg(kinds=("locked", "locked"))), "kinds are at least one and none twice"),
        (FaultSchedule(FaultsCfg(joints=())), "joints are at least one"),
        (FaultSchedule(FaultsCfg(joints=("torso", "torso"))), "joints are at least one and none twice"),
        (FaultSchedule(FaultsCfg(joints=("left_kne",))), "no joint 'left_kne'; did you mean 'left_knee'"),
        (FaultSchedule(FaultsCfg(), groups=(("torzo",),)), "no joint 'torzo'; did you mean 'torso'"),
        (
            FaultSchedule(FaultsCfg(joints=("torso",), count=(1, 2))),
            "count is up to 2, but there are only 1 candidates",
        ),
    ],
)
def test_wrong_schedules_are_refused_before_anything_runs(schedule: FaultSchedule, message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        Env(worlds.h1(num_envs=2, faults=schedule))


@pytest.mark.parametrize("kind", ["locked", "limited_range"])
def test_kinds_that_cannot_act_on_a_joint_are_refused(kind: Any) -> None:
    """The rover's wheels and vane have no range."""
    message = f"a fault '{kind}' cannot act on joint '{{}}' of rover, which has no range"
    cfg = worlds.rover(num_envs=2)

    def env(faults: FaultsCfg, **changes: Any) -> Env:
        return Env(replace(cfg, faults=FaultSchedule(faults, **changes)))

    with pytest.raises(KoboshiError, match=message.format("left_wheel")):
        env(FaultsCfg(kinds=("torque_loss", kind)))
    with pytest.raises(KoboshiError, match=message.format("vane")):
        env(FaultsCfg(joints=("mast", "vane"), kinds=(kind,)))
    with pytest.raises(KoboshiError, match=message.format("vane")):
        env(FaultsCfg(joints=("mast",), kinds=(kind,)), groups=(("mast",), ("vane",)))
    check_fault(worlds.ROVER, "mast", kind)
    env(FaultsCfg(joints=("mast",), kinds=(kind,)))
    for other in set(KINDS) - {"locked", "limited_range", "encoder_offset"}:
        check_fault(worlds.ROVER, "left_wheel", other)


def test_a_wheels_angle_has_no_offset_to_notice() -> None:
    with pytest.raises(KoboshiError, match="'encoder_offset' cannot act on joint 'left_wheel' of .*, a wheel"):
        check_fault(worlds.ROVER, "left_wheel", "encoder_offset")
    for name in ("mast", "vane"):
        check_fault(worlds.ROVER, name, "encoder_offset")


def test_with_groups_only_their_joints_matter() -> None:
    """A mast can lock though wheels cannot, as long as nothing else is to break beside it."""
    cfg = FaultsCfg(kinds=("locked",))
    both = FaultSchedule(replace(cfg, count=(1, 2)), groups=(("mast",),))
    with pytest.raises(KoboshiError, match="wheel"):
        Env(worlds.rover(num_envs=2, faults=both))
    env = Env(worlds.rover(num_envs=2, faults=FaultSchedule(cfg, onset_s=(0.0, 0.0), groups=(("mast",),))))
    env.reset(0)
    env.step(worlds.zeros(env))
    assert env.faults.severity.tolist() == [[0, 0, 1, 0]] * 2


def test_an_environment_draws_anew_for_each_episode() -> None:
    schedule = FaultSchedule(FaultsCfg(), onset_s=(0.02, 0.06))
    env = Env(worlds.h1(num_envs=16, episode_length_s=0.1, faults=schedule))
    env.reset(0)
    broken = []
    for t in range(1, 11):
        obs = env.step(torch.zeros(16, J)).final_obs["fault"]
        if t % 5 == 0:
            assert (obs.sum(1) == 1).all()
            broken.append(obs.argmax(1))
    assert not torch.equal(*broken)


def test_half_of_the_faults_are_whole_and_the_rest_uniform() -> None:
    faults = FaultsCfg(severity=(0.2, 0.6), whole=0.5)
    levels = faults.levels(torch.linspace(0, 1, 1001))
    assert levels[0] == pytest.approx(0.2) and levels[250] == pytest.approx(0.4) and levels[125] == pytest.approx(0.3)
    assert torch.allclose(levels[500:], torch.tensor(0.6)) and levels[499] < 0.6 - 1e-4
    assert FaultsCfg(severity=(0.2, 0.6)).levels(torch.tensor(0.5)) == pytest.approx(0.4)
    assert (FaultsCfg(severity=(0.2, 0.6), whole=1.0).levels(torch.tensor([1e-6, 1.0])) == torch.tensor(0.6)).all()
    with pytest.raises(KoboshiError, match="faults.whole is a share, from 0 to 1, not 1.5"):
        FaultsCfg(whole=1.5).validate()


def test_a_share_of_episodes_has_one_cause() -> None:
    kinds = ("torque_loss", "locked", "braking")
    mixed = FaultsCfg(kinds=kinds, severity=(0.2, 1.0), count=(2, 3))

    def drawn(share: float) -> tuple[torch.Tensor, torch.Tensor]:
        faults = layer(FaultSchedule(replace(mixed, alike=share), groups=(("left_knee", "right_knee"),)), 600)
        faults.restart(torch.ones(600, dtype=torch.bool), torch.Generator().manual_seed(3))
        return faults.which, faults.level

    which, level = drawn(0.4)
    alike = ((which == which[:, :1]) & (level == level[:, :1])).all(1)
    assert alike.float().mean() == pytest.approx(0.4, abs=0.06)
    assert len(which[alike].unique()) == 3 and level[alike, 0].std() > 0.2, "the first still has any kind and severity"
    which, level = drawn(1.0)
    assert (which == which[:, :1]).all() and (level == level[:, :1]).all()
    for wrong, message in (
        (replace(mixed, alike=1.5), "faults.alike is a share, from 0 to 1, not 1.5"),
        (
            FaultsCfg(severity=(0.5, 1.0), alike=0.5),
            "faults.alike has no effect: faults.count=.1, 1. breaks no two joints at once",
        ),
        (FaultsCfg(count=(1, 2), alike=0.5), "faults.alike=0.5 has no effect: all faults are of one kind and severity"),
    ):
        with pytest.raises(KoboshiError, match=message):
            wrong.validate()


def test_a_share_of_episodes_has_dead_joints_alone() -> None:
    mixed = FaultsCfg(kinds=("locked", "torque_loss", "braking"), severity=(0.2, 0.9), count=(1, 3))

    def drawn(**more: float) -> torch.Tensor:
        faults = layer(FaultSchedule(replace(mixed, severity=(0.2, 1.0), **more)), 600)
        faults.restart(torch.ones(600, dtype=torch.bool), torch.Generator().manual_seed(3))
        return ((faults.which == KINDS.index("torque_loss")) & (faults.level == 1.0)).all(1)

    assert not drawn().any()
    assert drawn(dead=0.4).float().mean() == pytest.approx(0.4, abs=0.06) and drawn(dead=1.0).all()
    for wrong, message in (
        (replace(mixed, dead=-0.1), "faults.dead is a share, from 0 to 1, not -0.1"),
        (
            replace(mixed, dead=0.1),
            "faults.dead=0.1 needs the kind torque_loss and severities up to 1, not .* up to 0.9",
        ),
        (
            FaultsCfg(kinds=("locked",), dead=0.1),
            "needs the kind torque_loss and severities up to 1, not locked up to 1.0",
        ),
        (FaultsCfg(dead=0.1), "faults.dead=0.1 has no effect: all joints that break are dead"),
    ):
        with pytest.raises(KoboshiError, match=message):
            wrong.validate()


def test_held_out_pairs_come_with_their_mirror_images() -> None:
    pairs = held_out_pairs(UNITREE_H1)
    other = {
        name: UNITREE_H1.joint_names[UNITREE_H1.mirror_ids[UNITREE_H1.joint_id(name)]]
        for name in UNITREE_H1.joint_names
    }
    assert all(frozenset(other[name] for name in pair) in pairs for pair in pairs)
    assert 0.2 * 136 < len(pairs) < 0.3 * 136


@pytest.mark.parametrize("groups", [None, (("left_knee", "right_knee"), ("torso",))])
def test_no_schedule_draws_them(groups) -> None:
    out = {frozenset(UNITREE_H1.joint_id(name) for name in pair) for pair in held_out_pairs(UNITREE_H1)}
    met, sizes = set(), set()
    faults = layer(FaultSchedule(FaultsCfg(count=(1, 4), hold_out=True), groups=groups), 512)
    for seed in range(4):
        draw(faults, seed)
        for joints, breaks in zip(faults.joint.tolist(), planned(faults).tolist(), strict=True):
            broken = [joint for joint, is_so in zip(joints, breaks, strict=True) if is_so]
            met |= {frozenset(pair) for pair in combinations(broken, 2)}
            sizes.add(len(broken))
    assert not met & out and sizes == {1, 2, 3, 4}
    if groups is None:
        assert len(met) == 136 - len(out), "all others are met"
    everything = layer(FaultSchedule(FaultsCfg(count=(1, 4)), groups=groups), 512)
    draw(everything, 0)
    first_two = {frozenset(row[:2]) for row in everything.joint.tolist()}
    assert first_two & out, "without it they are drawn: the test says little otherwise"
    assert torch.equal(planned(everything)[:, 0], planned(faults)[:, 0]), "the first fault always stays"


def test_a_single_fault_has_no_partner_to_leave_out() -> None:
    with pytest.raises(KoboshiError, match="faults.hold_out has no effect: faults.count=.1, 1. breaks no two"):
        override(FaultsCfg(), ["hold_out=true"])
