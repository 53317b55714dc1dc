"""Which specialist serves which joint."""

from __future__ import annotations

import pytest

from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1
from koboshi.specialists.assignment import assign


def test_one_a_joint() -> None:
    bank = assign(UNITREE_H1, "joint")
    assert len(bank.members) == 17
    assert [m.joints for m in bank.members] == [(name,) for name in UNITREE_H1.fault_candidates]
    assert not bank.is_mirrored(UNITREE_H1).any()


def test_one_a_mirrored_pair() -> None:
    bank = assign(UNITREE_H1, "mirrored_pair")
    assert [m.name for m in bank.members] == [
        "hip_yaw", "hip_roll", "hip_pitch", "knee", "torso",
        "shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow",
    ]  # fmt: skip
    for member in bank.members:
        if member.name == "torso":
            assert (member.joints, member.mirrored) == (("torso",), ())
        else:
            assert member.joints == (f"left_{member.name}", f"right_{member.name}")
            assert member.mirrored == (f"right_{member.name}",)


def test_one_a_limb() -> None:
    bank = assign(UNITREE_H1, "limb")
    assert [(m.name, len(m.joints)) for m in bank.members] == [
        ("left_leg", 4), ("right_leg", 4), ("torso", 1), ("left_arm", 4), ("right_arm", 4),
    ]  # fmt: skip


@pytest.mark.parametrize("sharing", ["joint", "mirrored_pair", "limb"])
def test_tables_agree_with_the_members(sharing: str) -> None:
    bank = assign(UNITREE_H1, sharing)
    member_of, mirrored = bank.member_of(UNITREE_H1), bank.is_mirrored(UNITREE_H1)
    assert member_of.shape == mirrored.shape == (20,)
    assert member_of[-1] == -1 and not mirrored[-1], "no joint, no member"
    for j, name in enumerate(UNITREE_H1.joint_names):
        serving = [k for k, m in enumerate(bank.members) if name in m.joints]
        assert serving == ([] if "ankle" in name else [int(member_of[j])])
        assert mirrored[j] == any(name in m.mirrored for m in bank.members)
    assert bank.groups == tuple(m.joints for m in bank.members)


def test_a_part_of_the_joints() -> None:
    lone = assign(UNITREE_H1, "mirrored_pair", ("right_knee", "left_elbow", "right_elbow"))
    assert [(m.name, m.joints, m.mirrored) for m in lone.members] == [
        ("right_knee", ("right_knee",), ()),
        ("elbow", ("left_elbow", "right_elbow"), ("right_elbow",)),
    ]
    assert [m.name for m in lone.only([1]).members] == ["elbow"]


@pytest.mark.parametrize("sharing", ["joint", "mirrored_pair", "limb"])
def test_errors(sharing: str) -> None:
    with pytest.raises(KoboshiError, match="no joint 'left_kne'; did you mean 'left_knee'"):
        assign(UNITREE_H1, sharing, ("left_kne",))
    with pytest.raises(KoboshiError, match="no sharing 'pairs'; .*sharings: joint, mirrored_pair, limb"):
        assign(UNITREE_H1, "pairs")
