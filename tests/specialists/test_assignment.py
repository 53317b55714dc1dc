"""Which specialist serves which joint, on robots that name their sides in different ways."""

from __future__ import annotations

import pytest
from bodies import G1, GO2, H1, Body
from pydantic import TypeAdapter

from koboshi.errors import KoboshiError
from koboshi.specialists.assignment import Assignment, Member, assign, pair_name


@pytest.mark.parametrize("body", [H1, G1, GO2], ids=lambda body: body.name)
def test_one_a_joint(body: Body) -> None:
    bank = assign(body, "joint")
    assert [m.joints for m in bank.members] == [(name,) for name in body.fault_candidates]
    assert [m.name for m in bank.members] == list(body.fault_candidates)
    assert not bank.uses_mirror


PAIRS = {
    "unitree_h1": "hip_yaw hip_roll hip_pitch knee torso shoulder_pitch shoulder_roll shoulder_yaw elbow",
    "unitree_g1": "hip_pitch_joint hip_roll_joint hip_yaw_joint knee_joint waist_yaw_joint waist_roll_joint "
    "waist_pitch_joint shoulder_pitch_joint shoulder_roll_joint shoulder_yaw_joint elbow_joint wrist_roll_joint "
    "wrist_pitch_joint wrist_yaw_joint",
    "unitree_go2": "F_hip_joint F_thigh_joint F_calf_joint R_hip_joint R_thigh_joint R_calf_joint",
}


@pytest.mark.parametrize("body", [H1, G1, GO2], ids=lambda body: body.name)
def test_one_a_mirrored_pair(body: Body) -> None:
    bank = assign(body, "mirrored_pair")
    assert [m.name for m in bank.members] == PAIRS[body.name].split()
    assert sorted(j for m in bank.members for j in m.joints) == sorted(body.fault_candidates)
    for member in bank.members:
        assert member.mirrored == member.joints[1:], "its own side is the first joint's"
        ids = [body.joint_id(name) for name in member.joints]
        assert ids == sorted(ids)
        assert body.mirror_ids[ids[0]] == ids[-1]


def test_a_mirrored_pair_of_a_dog() -> None:
    bank = assign(GO2, "mirrored_pair", ("RR_calf_joint", "RL_calf_joint", "FL_hip_joint"))
    assert bank.members == (
        Member("R_calf_joint", ("RL_calf_joint", "RR_calf_joint"), ("RR_calf_joint",)),
        Member("FL_hip_joint", ("FL_hip_joint",)),
    )


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ("left_knee", "right_knee", "knee"),
        ("knee_left", "knee_right", "knee"),
        ("leg_left_knee", "leg_right_knee", "leg_knee"),
        ("LeftHipPitch", "RightHipPitch", "HipPitch"),
        ("FL_hip_joint", "FR_hip_joint", "F_hip_joint"),
        ("hip_l", "hip_r", "hip"),
        ("L_hip_2", "R_hip_2", "hip_2"),
        ("hip_L3", "hip_R3", "hip_3"),
        ("left", "right", "left"),
        ("joint_1", "joint_4", "joint"),
        ("a_b", "c", "a_b"),
    ],
)
def test_what_two_names_have_in_common(one: str, other: str, name: str) -> None:
    assert pair_name(one, other) == name


def test_pairs_that_would_have_the_same_name_keep_their_own() -> None:
    joints = ("joint_1", "joint_2", "joint_3", "joint_4")
    body = Body("numbered", joints, (("joint_1", "joint_3"), ("joint_2", "joint_4")))
    bank = assign(body, "mirrored_pair")
    assert [(m.name, m.joints) for m in bank.members] == [
        ("joint_1", ("joint_1", "joint_3")),
        ("joint_2", ("joint_2", "joint_4")),
    ]


def test_one_a_limb() -> None:
    bank = assign(H1, "limb")
    assert [(m.name, len(m.joints)) for m in bank.members] == [
        ("left_leg", 4), ("right_leg", 4), ("torso", 1), ("left_arm", 4), ("right_arm", 4),
    ]  # fmt: skip
    assert bank.groups == tuple(m.joints for m in bank.members)
    assert not bank.uses_mirror


def test_a_smaller_bank_covers_as_the_whole_one() -> None:
    bank = assign(H1, "mirrored_pair", ("right_knee", "left_elbow", "right_elbow"), cover="healthy")
    assert [(m.name, m.joints, m.mirrored) for m in bank.members] == [
        ("right_knee", ("right_knee",), ()),
        ("elbow", ("left_elbow", "right_elbow"), ("right_elbow",)),
    ]
    assert bank.only([1]) == Assignment(bank.members[1:], "healthy")


def test_as_json_and_back() -> None:
    bank = assign(GO2, "mirrored_pair", cover="healthy")
    adapter = TypeAdapter(Assignment)
    assert adapter.validate_json(adapter.dump_json(bank)) == bank


@pytest.mark.parametrize("sharing", ["joint", "mirrored_pair", "limb"])
def test_errors(sharing: str) -> None:
    with pytest.raises(KoboshiError, match="no joint 'left_kne'; did you mean 'left_knee'"):
        assign(H1, sharing, ("left_kne",))
    with pytest.raises(KoboshiError, match="no sharing 'pairs'; .*sharings: joint, mirrored_pair, limb"):
        assign(H1, "pairs")
    with pytest.raises(KoboshiError, match="no cover 'first'; .*covers: strongest, healthy"):
        assign(H1, sharing, cover="first")


def test_members_that_make_no_sense() -> None:
    with pytest.raises(KoboshiError, match="two specialists have the same name: knee"):
        Assignment((Member("knee", ("left_knee",)), Member("knee", ("right_knee",))))
    with pytest.raises(KoboshiError, match="specialist 'knee' serves"):
        Assignment((Member("knee", ("left_knee",), ("right_knee",)),))
