import json

import pytest
import torch

from koboshi.data import Dataset, Sequences, check, find_episodes, find_faults, picture, side_by_side, statistics
from koboshi.errors import KoboshiError


def sequences(card, reset, episode, severity):
    never = torch.zeros_like(reset)
    columns = {"reset": reset, "episode": episode, "severity": severity, "terminated": never, "truncated": never}
    return Sequences(card, columns, torch.zeros(reset.shape, dtype=torch.int8))


@pytest.fixture
def recorded(toy):
    reset = torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0], [0, 0]], dtype=torch.bool)
    episode = torch.tensor([[0, 1], [0, 1], [2, 1], [2, 1], [2, 1]])
    severity = torch.zeros(5, 2, 2)
    severity[1:3, 0, 1] = 1.0  # joint 1 of environment 0: over a reset, so two faults
    severity[1:3, 1, 0] = 0.5  # healed at row 3
    severity[4, 1, 1] = 0.1
    return sequences(toy.card(), reset, episode, severity)


def test_episodes_and_faults_by_hand(recorded):
    recorded.columns["truncated"] = torch.zeros(5, 2, dtype=torch.bool)
    recorded["truncated"][1, 0] = recorded["truncated"][4, 1] = True
    episodes = find_episodes(recorded)
    found = [tuple(map(int, row)) for row in zip(*episodes, strict=True)]
    # env, first row, end, id, cut off: environment 1's episode ends with the recording, but does end.
    assert found == [(0, 0, 2, 0, 0), (0, 2, 5, 2, 1), (1, 0, 5, 1, 0)]
    faults = find_faults(recorded, episodes)
    assert list(zip(*map(list, faults), strict=True)) == [
        (0, 1, 1, 2, 0, 0),
        (0, 1, 2, 3, 2, 1),
        (1, 0, 1, 3, 0, 2),
        (1, 1, 4, 5, 0, 2),
    ]
    assert len(find_faults(recorded, episodes, floor=0.2).env) == 3


def test_faults_are_the_same_in_blocks_of_any_size(recorded, monkeypatch):
    episodes = find_episodes(recorded)
    whole = find_faults(recorded, episodes)
    monkeypatch.setattr(Sequences.blocks, "__defaults__", (1,))
    for a, b in zip(whole, find_faults(recorded, episodes), strict=True):
        assert a.tolist() == b.tolist()


def test_episodes_laid_side_by_side(recorded):
    lanes = side_by_side(recorded, find_episodes(recorded))
    assert lanes["episode"].t().tolist() == [[0, 0, 0, 0, 0], [2, 2, 2, 2, 2], [1, 1, 1, 1, 1]]
    assert lanes.part.t().tolist() == [[0, 0, -2, -2, -2], [0, 0, 0, -2, -2], [0] * 5]
    assert lanes["reset"].sum(0).tolist() == [1, 1, 1]
    found = find_episodes(lanes)
    assert found.end.tolist() == [2, 3, 5] and found.id.tolist() == [0, 2, 1]
    faults = find_faults(lanes, found)
    assert (faults.env.tolist(), faults.onset.tolist()) == ([0, 1, 2, 2], [1, 0, 1, 4])
    assert faults.end.tolist() == [2, 1, 3, 5], "padding is no fault"


def test_statistics_by_hand_and_picture(tmp_path, toy):
    stats = statistics(Dataset.open(toy.write(tmp_path)))
    assert stats["rows"] == 240 and stats["episodes"] == 12 and stats["faults"] == 6
    assert stats["rows_by_joint"] == {"left_knee": 40, "right_knee": 20, "torso": 0}
    assert stats["episodes_by_joint"] == {"left_knee": 4, "right_knee": 2, "torso": 0}
    assert stats["simultaneous"] == {"0": 180, "1": 60} and stats["healthy_fraction"] == 0.75
    assert stats["onset_s"]["quantiles"]["0.5"] == pytest.approx(0.2)
    assert stats["episode_s"]["quantiles"]["1.0"] == pytest.approx(0.4)
    assert stats["split"] is None
    json.dumps(stats)
    picture(stats, tmp_path / "data.png")
    assert (tmp_path / "data.png").stat().st_size > 10_000


def test_transitions_without_faults_have_statistics_and_pass_the_check(tmp_path, toy):
    columns = {n: c for n, c in toy.card().columns.items() if n not in ("severity", "kind", "member")}
    chunk = toy.chunk()
    for name in ("severity", "kind", "member"):
        del chunk.columns[name]
    path = toy.write(tmp_path, chunk=chunk, columns=columns, candidates=[], faults=None, onset_s=None, law=None)
    stats = statistics(Dataset.open(path))
    assert stats["healthy_fraction"] is None and stats["faults"] is None and stats["episodes"] == 12
    assert stats["rows_by_joint"] == stats["episodes_by_joint"] == stats["simultaneous"] == {}
    picture(stats, tmp_path / "data.png")
    check(Dataset.open(path))
    with pytest.raises(KoboshiError, match="no column 'severity'"):
        Dataset.open(path).sequences()[0]["severity"]


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("obs.detector", lambda x: x[7, 2].__setitem__(4, float("nan")), r"joint_torque\[1\] is NaN .* 7 of environm"),
        ("obs.detector", lambda x: x[7, 2].__setitem__(0, float("inf")), r"joint_pos\[0\]"),
        ("reward", lambda x: x[7].__setitem__(5, float("nan")), "reward is NaN .* step 7 of environment 5"),
        ("severity", lambda x: x[..., 1].zero_(), "candidate joint right_knee never fails"),
        ("severity", lambda x: x[..., 0].fill_(1.0), "left_knee fails in 100% of the rows"),
        ("severity", lambda x: x[20, 1].fill_(1.0), r"labels outlive 1 resets, such as episode 7 \(environment 1, st"),
        ("severity", lambda x: x[30, 1, 2].fill_(1.0), "torso fails but is not a candidate"),
        ("severity", lambda x: x[30, 1, 0].fill_(1.5), "severity of left_knee is 1.5"),
        ("reset", lambda x: x[20, 3].fill_(False), "start without a reset, such as episode 9"),
        ("episode", lambda x: x[20:, 0].fill_(1), "episode ids are not unique: 1 starts 2 times"),
    ],
)
def test_checks_refuse(tmp_path, toy, name, spoil, message, monkeypatch):
    monkeypatch.setattr(Sequences.blocks, "__defaults__", (4,))
    chunk = toy.chunk()
    spoil(chunk.columns[name])
    with pytest.raises(KoboshiError, match=message):
        check(Dataset.open(toy.write(tmp_path, chunk=chunk)))
