import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from koboshi.data import (
    Chunk,
    Dataset,
    DatasetCard,
    PdCard,
    ShardWriter,
    check,
    find_episodes,
    find_faults,
    picture,
    split,
    statistics,
)
from koboshi.data.dataset import SPLIT_FILE
from koboshi.data.shards import RESUME_FILE, read_shard, shard_name
from koboshi.errors import KoboshiError

JOINTS = ["left_knee", "right_knee", "torso"]
STEPS, ENVS, LENGTH = 40, 6, 20


def make_card(**changes):
    card = DatasetCard(
        robot="toy",
        task="toy-walk",
        command="koboshi collect toy-walk",
        commit="abc",
        checkpoint="runs/x.safetensors",
        checkpoint_sha256="00",
        seed=3,
        faults={"severity": [0.5, 1.0]},
        onset_s=(0.1, 0.3),
        control_dt=0.02,
        layout=[("joint_pos", 0, 3), ("joint_torque", 3, 3)],
        joint_names=JOINTS,
        candidates=["left_knee", "right_knee"],
        pd=PdCard(0.5, [100.0] * 3, [1.0] * 3, [50.0] * 3, [0.0] * 3),
        num_envs=ENVS,
        controller="healthy",
        round=1,
    )
    return replace(card, **changes)


def make_chunk(step0=0, steps=STEPS):
    """Two episodes of 20 rows an environment; odd environments lose joint (env // 2) % 2 from row 10 on."""
    row = torch.arange(step0, step0 + steps)[:, None].expand(steps, ENVS)
    env = torch.arange(ENVS).expand(steps, ENVS)
    severity = torch.zeros(steps, ENVS, 3)
    failing = (row % LENGTH >= 10) & (env % 2 == 1)
    severity.scatter_(2, ((env // 2) % 2)[..., None], failing.float()[..., None])
    obs = torch.randn(steps, ENVS, 6, generator=torch.Generator().manual_seed(step0))
    member = torch.full((steps, ENVS), -1)
    return Chunk(obs, severity, env + ENVS * (row // LENGTH), row % LENGTH == 0, member, step0)


def write(path, card=None, chunk=None, **changes):
    writer = ShardWriter(path, card or make_card(**changes))
    writer.append(chunk or make_chunk())
    writer.finish()
    return path


def test_what_is_written_is_read_back(tmp_path):
    writer = ShardWriter(tmp_path, make_card())
    chunks = [make_chunk(0, 13), make_chunk(13, 27)]
    for chunk in chunks:
        writer.append(chunk)
    writer.finish()
    (seq,) = Dataset.open(tmp_path).sequences()
    for name in ("obs", "severity", "episode", "reset", "member"):
        assert torch.equal(getattr(seq, name), torch.cat([getattr(c, name) for c in chunks])), name
    assert seq.card.layout == [("joint_pos", 0, 3), ("joint_torque", 3, 3)] and seq.card.complete


def test_plain_parquet_readers_see_env_major_rows(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(write(tmp_path) / shard_name(0))
    assert table["env"].to_pylist() == [env for env in range(ENVS) for _ in range(STEPS)]
    assert table["step"].to_pylist() == list(range(STEPS)) * ENVS
    assert table["severity"][STEPS + 12].as_py() == [1.0, 0.0, 0.0]


def test_a_killed_collection_goes_on(tmp_path):
    first = ShardWriter(tmp_path, make_card())
    first.append(make_chunk(0, 10))
    first.save_state({"rng": torch.arange(4)})
    first.append(make_chunk(10, 10))  # killed before its state was stored
    with pytest.raises(KoboshiError, match="not complete; to finish it, run again: koboshi collect toy-walk"):
        Dataset.open(tmp_path)
    with pytest.raises(KoboshiError, match="already holds a data set"):
        ShardWriter(tmp_path, make_card())
    with pytest.raises(KoboshiError, match="its seed is 3, not 4"):
        ShardWriter(tmp_path, make_card(seed=4), resume=True)
    second = ShardWriter(tmp_path, make_card(commit="later"), resume=True)
    assert second.next_shard == 1 and not (tmp_path / shard_name(1)).exists()
    assert torch.equal(second.load_state()["rng"], torch.arange(4))
    second.append(make_chunk(10, 30))
    second.finish()
    assert not (tmp_path / RESUME_FILE).exists()
    (seq,) = Dataset.open(tmp_path).sequences()
    assert seq.num_steps == STEPS
    assert ShardWriter(tmp_path, make_card(), resume=True).complete


def test_a_wrong_shape_is_refused(tmp_path):
    chunk = make_chunk()
    chunk.obs = chunk.obs[..., :5]
    with pytest.raises(KoboshiError, match=r"chunk.obs has shape \(40, 6, 5\), expected \(40, 6, 6\)"):
        ShardWriter(tmp_path, make_card()).append(chunk)
    assert not list(tmp_path.glob("*shard*"))


def test_damaged_data_is_refused_by_name(tmp_path):
    shard = write(tmp_path) / shard_name(0)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KoboshiError, match="shard-00000.parquet is truncated or tampered"):
        Dataset.open(tmp_path)
    for at in (200, len(whole) // 3, len(whole) // 2):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(KoboshiError, match="shard-00000.parquet"):
            Dataset.open(tmp_path).sequences()
    shard.unlink()
    with pytest.raises(KoboshiError, match="lacks shard-00000.parquet"):
        Dataset.open(tmp_path)


def test_another_collections_shard_is_refused(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    a, b = write(tmp_path / "a"), write(tmp_path / "b", chunk=make_chunk(0, 20))
    (a / shard_name(0)).write_bytes((b / shard_name(0)).read_bytes())
    with pytest.raises(KoboshiError, match="its card says"):
        Dataset.open(a)
    table = pq.read_table(b / shard_name(0))
    changed = table.set_column(6, "member", [np.zeros(len(table), np.int16)])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), b / shard_name(0))
    with pytest.raises(KoboshiError, match="do not have the digest"):
        Dataset.open(b).sequences()


def test_missing_empty_and_foreign_data_sets(tmp_path):
    with pytest.raises(KoboshiError, match="no data set at"):
        Dataset.open(tmp_path / "none")
    ShardWriter(tmp_path / "empty", make_card()).finish()
    with pytest.raises(KoboshiError, match="is empty"):
        Dataset.open(tmp_path / "empty")
    a = write(tmp_path / "a")
    with pytest.raises(KoboshiError, match="is of robot 'toy', not of 'unitree_h1'"):
        Dataset.open(a, expect_robot="unitree_h1")
    other = write(tmp_path / "b", layout=[("joint_vel", 0, 3), ("joint_torque", 3, 3)])
    with pytest.raises(KoboshiError, match="layout"):
        Dataset.open([a, other])


def test_a_wrong_card_is_refused(tmp_path):
    card = json.loads((write(tmp_path) / "card.json").read_text())
    for change, message in (
        ({"num_envs": "many"}, "num_envs"),
        ({"candidates": ["left_kne"]}, "did you mean 'left_knee'"),
        ({"extra": 1}, "extra"),
    ):
        (tmp_path / "card.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(KoboshiError, match=message):
            Dataset.open(tmp_path)


def test_parts_are_joined_along_environments_with_unique_episodes(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    c = write(tmp_path / "c", chunk=make_chunk(0, 20))
    long, short = Dataset.open([a, b, c]).sequences()
    assert (long.num_steps, long.num_envs, short.num_steps, short.num_envs) == (STEPS, 2 * ENVS, 20, ENVS)
    assert len(torch.unique(torch.cat([long.episode.flatten(), short.episode.flatten()]))) == 5 * ENVS
    check([long, short])


def test_episodes_and_faults_by_hand():
    reset = torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0], [0, 0]], dtype=torch.bool)
    episode = torch.tensor([[0, 1], [0, 1], [2, 1], [2, 1], [2, 1]])
    severity = torch.zeros(5, 2, 2)
    severity[1:3, 0, 1] = 1.0  # joint 1 of environment 0: over a reset, so two faults
    severity[1:3, 1, 0] = 0.5  # healed at row 3
    severity[4, 1, 1] = 0.1
    episodes = find_episodes(reset, episode)
    assert list(zip(*map(list, episodes), strict=True)) == [(0, 0, 2, 0), (0, 2, 5, 2), (1, 0, 5, 1)]
    faults = find_faults(severity, episodes)
    assert list(zip(*map(list, faults), strict=True)) == [
        (0, 1, 1, 2, 0, 0),
        (0, 1, 2, 3, 2, 1),
        (1, 0, 1, 3, 0, 2),
        (1, 1, 4, 5, 0, 2),
    ]
    assert len(find_faults(severity, episodes, floor=0.2).env) == 3


def test_statistics_by_hand_and_picture(tmp_path):
    stats = statistics(Dataset.open(write(tmp_path)))
    assert stats["rows"] == 240 and stats["episodes"] == 12 and stats["faults"] == 6
    assert stats["rows_by_joint"] == {"left_knee": 40, "right_knee": 20, "torso": 0}
    assert stats["episodes_by_joint"] == {"left_knee": 4, "right_knee": 2, "torso": 0}
    assert stats["simultaneous"] == {"0": 180, "1": 60} and stats["healthy_fraction"] == 0.75
    assert stats["onset_s"]["quantiles"]["0.5"] == pytest.approx(0.2)
    assert stats["episode_s"]["quantiles"]["1.0"] == pytest.approx(0.4)
    json.dumps(stats)
    picture(stats, tmp_path / "data.png")
    assert (tmp_path / "data.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda c: c.obs[7, 2].__setitem__(4, float("nan")),
            r"joint_torque\[1\] is NaN .* step 7 of environment 2",
        ),
        (lambda c: c.obs[7, 2].__setitem__(0, float("inf")), r"joint_pos\[0\]"),
        (lambda c: c.severity[..., 1].zero_(), "candidate joint right_knee never fails"),
        (lambda c: c.severity[..., 0].fill_(1.0), "left_knee fails in 100% of the rows"),
        (
            lambda c: c.severity[20, 1].fill_(1.0),
            r"labels outlive 1 resets, such as episode 7 \(environment 1, step 20",
        ),
        (lambda c: c.severity[30, 1, 2].fill_(1.0), "torso fails but is not a candidate"),
        (lambda c: c.severity[30, 1, 0].fill_(1.5), "severity of left_knee is 1.5"),
        (lambda c: c.reset[20, 3].fill_(False), "start without a reset, such as episode 9"),
        (lambda c: c.episode[20:, 0].fill_(1), "episode ids are not unique: 1 starts 2 times"),
    ],
)
def test_checks_refuse(tmp_path, spoil, message):
    chunk = make_chunk()
    spoil(chunk)
    with pytest.raises(KoboshiError, match=message):
        check(Dataset.open(write(tmp_path, chunk=chunk)))


def test_split_is_by_episode_repeatable_and_checked(tmp_path):
    dataset = Dataset.open(write(tmp_path))
    (mask,) = split(dataset, 0.25, seed=1)
    (again,) = split(dataset, 0.25, seed=1)
    assert torch.equal(mask, again)
    (seq,) = dataset.sequences()
    assert torch.equal(seq.test, mask)
    test, train = seq.episode[mask].unique(), seq.episode[~mask].unique()
    assert len(test) == 3 and len(train) == 9 and not set(test.tolist()) & set(train.tolist())
    record = json.loads((tmp_path / SPLIT_FILE).read_text())
    record["train"].append(record["test"][0])
    (tmp_path / SPLIT_FILE).write_text(json.dumps(record))
    with pytest.raises(KoboshiError, match=f"mixes train and test: episodes {record['test'][0]} are in both"):
        dataset.sequences()
    (tmp_path / SPLIT_FILE).write_text(json.dumps({"train": [0], "test": [1]}))
    with pytest.raises(KoboshiError, match="of another data set: episodes 2, 3, 4, 5, 6 … are in neither"):
        dataset.sequences()
    with pytest.raises(KoboshiError, match="--split 1.5"):
        split(dataset, 1.5, seed=0)


def test_no_space_leaves_nothing_half_written(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")

    def full(table, where, **options):
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(KoboshiError, match="no space left to write .*shard-00000.parquet"):
        ShardWriter(tmp_path, make_card()).append(make_chunk())
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_read_shard_gives_writable_tensors(tmp_path):
    chunk = read_shard(write(tmp_path) / shard_name(0))
    chunk.obs += 1.0
