import json
from pathlib import Path

import numpy as np
import pytest
import torch

from koboshi.data import Dataset, ShardWriter
from koboshi.data.shards import RESUME_FILE, final_name, read_shard, shard_name
from koboshi.errors import KoboshiError

STEPS, ENVS = 40, 6


def test_what_is_written_is_read_back(tmp_path, toy):
    writer = ShardWriter(tmp_path, toy.card())
    chunks = [toy.chunk(0, 13), toy.chunk(13, 27)]
    for chunk in chunks:
        writer.append(chunk)
    writer.finish()
    (seq,) = Dataset.open(tmp_path).sequences()
    assert set(seq.columns) == set(toy.card().columns) - {"env", "step"}
    for name, column in seq.columns.items():
        whole = torch.cat([c.columns[name] for c in chunks])
        assert torch.equal(column, whole.to(column.dtype)), name
    dtypes = {"obs.eye": torch.uint8, "kind": torch.int8, "member": torch.int16, "severity": torch.float32}
    assert {name: seq[name].dtype for name in dtypes} == dtypes
    assert seq.card.complete and (seq.num_steps, seq.num_envs) == (STEPS, ENVS)
    chunk = read_shard(tmp_path / shard_name(1))
    chunk.columns["obs.detector"] += 1.0
    assert chunk.step0 == 13 and torch.equal(chunk.final.obs["eye"], chunks[1].final.obs["eye"])


def test_plain_parquet_readers_see_env_major_rows(tmp_path, toy):
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(toy.write(tmp_path) / shard_name(0))
    assert table["env"].to_pylist() == [env for env in range(ENVS) for _ in range(STEPS)]
    assert table["step"].to_pylist() == list(range(STEPS)) * ENVS
    assert table["severity"][STEPS + 12].as_py() == [1.0, 0.0, 0.0]
    assert len(table["obs.eye"][0].as_py()) == 12


def test_next_observations_are_the_next_rows_or_the_true_last_ones(tmp_path, toy):
    writer = ShardWriter(tmp_path, toy.card())
    for chunk in (toy.chunk(0, 13), toy.chunk(13, 27)):
        writer.append(chunk)
    writer.finish()
    (seq,) = Dataset.open(tmp_path).sequences(["obs.detector", "obs.eye"], next_obs=True)
    step, env = torch.tensor([4, 12, 19, 19, 20, 39]), torch.tensor([2, 3, 0, 4, 0, 5])
    told = seq.next_obs("detector", step, env)
    rows = seq["obs.detector"]
    assert torch.equal(told[:2], torch.stack([rows[5, 2], rows[13, 3]]))  # the second one lies in the next shard
    assert told[2:4, 0].tolist() == [1190.0, 1194.0], "where an episode ends the next row is another one's"
    assert torch.equal(told[4], rows[21, 0])
    assert told[5, 0] == 1395.0, "after the last row of the recording"
    assert seq.next_obs("eye", step[2:3], env[2:3]).unique().tolist() == [7]
    assert len(seq.final.step) == 12, "one an episode, not one a row"
    with pytest.raises(KoboshiError, match="were not asked for"):
        Dataset.open(tmp_path).sequences()[0].next_obs("detector", step, env)


def test_a_recording_that_ends_within_episodes_says_what_it_does_not_know(tmp_path, toy):
    toy.write(tmp_path, chunk=toy.chunk(0, 30))
    (seq,) = Dataset.open(tmp_path).sequences(next_obs=True)
    with pytest.raises(KoboshiError, match="no observation after step 29 of environment 2"):
        seq.next_obs("detector", torch.tensor([3, 29]), torch.tensor([2, 2]))


def test_an_episodes_end_without_its_last_observation_is_refused(tmp_path, toy):
    chunk = toy.chunk()
    chunk.columns["terminated"][7, 3] = True
    with pytest.raises(KoboshiError, match="1 episodes end without .* step 7 of environment 3"):
        ShardWriter(tmp_path, toy.card()).append(chunk)


def test_columns_are_decoded_when_asked_for_and_shards_touched_later_are_verified_anew(tmp_path, toy):
    shard = toy.write(tmp_path) / shard_name(0)
    dataset = Dataset.open(tmp_path)
    cache = tmp_path / "cache" / dataset.card.content
    dataset.sequences(["severity"])
    assert {p.stem for p in cache.iterdir()} == {"severity", "episode", "reset", "terminated", "truncated"}
    first = (cache / "severity.npy").stat().st_mtime_ns
    (seq,) = dataset.sequences(["severity"])
    assert (cache / "severity.npy").stat().st_mtime_ns == first, "decoded twice"
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(cache / "severity.npy") in maps.read_text(), "the whole column was read"
    seq["severity"].fill_(9.0)  # reaches no file
    whole = (cache / "severity.npy").read_bytes()
    (cache / "severity.npy").write_bytes(whole[:-100])
    assert float(dataset.sequences(["severity"])[0]["severity"].max()) == 1.0
    data = shard.read_bytes()
    shard.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(KoboshiError, match="shard-00000.parquet"):
        dataset.sequences()
    assert not list(cache.glob(".*")), "nothing half written is left"


def test_a_killed_collection_goes_on(tmp_path, toy):
    first = ShardWriter(tmp_path, toy.card())
    first.append(toy.chunk(0, 10))
    first.save_state({"rng": torch.arange(4)})
    first.append(toy.chunk(10, 10))  # killed before its state was stored
    with pytest.raises(KoboshiError, match="not complete; to finish it, run again: koboshi collect toy-walk"):
        Dataset.open(tmp_path)
    with pytest.raises(KoboshiError, match="already holds a data set"):
        ShardWriter(tmp_path, toy.card())
    with pytest.raises(KoboshiError, match="which holds other data: seed: 3 -> 4"):
        ShardWriter(tmp_path, toy.card(seed=4), resume=True)
    second = ShardWriter(tmp_path, toy.card(commit="later"), resume=True)
    assert second.next_shard == 1
    assert not (tmp_path / shard_name(1)).exists() and not (tmp_path / final_name(shard_name(1))).exists()
    assert torch.equal(second.load_state()["rng"], torch.arange(4))
    second.append(toy.chunk(10, 30))
    second.finish()
    assert not (tmp_path / RESUME_FILE).exists()
    (seq,) = Dataset.open(tmp_path).sequences()
    assert seq.num_steps == STEPS
    assert ShardWriter(tmp_path, toy.card(), resume=True).complete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update({"obs.detector": c["obs.detector"][..., :5]}), r"obs.detector has shape \(40, 6, 5\), exp"),
        (lambda c: c.update({"kind": c["kind"].float()}), "kind is float32, expected int8"),
        (lambda c: c.pop("reward"), "lacks column 'reward'"),
        (lambda c: c.update({"rewards": c["reward"]}), "no column 'rewards'; did you mean 'reward'"),
    ],
)
def test_a_chunk_that_does_not_fit_the_card_is_refused(tmp_path, toy, change, message):
    chunk = toy.chunk()
    change(chunk.columns)
    with pytest.raises(KoboshiError, match=message):
        ShardWriter(tmp_path, toy.card()).append(chunk)
    assert not list(tmp_path.glob("*shard*"))


def test_damaged_data_is_refused_by_name(tmp_path, toy):
    shard = toy.write(tmp_path) / shard_name(0)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KoboshiError, match="shard-00000.parquet is truncated or tampered"):
        Dataset.open(tmp_path)
    shard.write_bytes(whole)
    (true,) = Dataset.open(tmp_path).sequences()
    refused = 0
    for at in range(10, len(whole), len(whole) // 14):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            (found,) = Dataset.open(tmp_path).sequences()
        except KoboshiError as error:
            assert "shard-00000.parquet" in str(error)
            refused += 1
        else:  # a byte that nobody needs
            assert all(torch.equal(true[name], found[name]) for name in true.columns)
    assert refused >= 10
    shard.write_bytes(whole)
    final = tmp_path / final_name(shard_name(0))
    data = final.read_bytes()
    final.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    with pytest.raises(KoboshiError, match="final-00000.parquet"):
        Dataset.open(tmp_path).sequences(next_obs=True)
    shard.unlink()
    with pytest.raises(KoboshiError, match="lacks shard-00000.parquet"):
        Dataset.open(tmp_path)


def test_another_collections_shard_is_refused(tmp_path, toy):
    pq = pytest.importorskip("pyarrow.parquet")
    a, b = toy.write(tmp_path / "a"), toy.write(tmp_path / "b", chunk=toy.chunk(0, 20))
    (a / shard_name(0)).write_bytes((b / shard_name(0)).read_bytes())
    with pytest.raises(KoboshiError, match="its card says"):
        Dataset.open(a)
    table = pq.read_table(b / shard_name(0))
    changed = table.set_column(table.column_names.index("member"), "member", [np.zeros(len(table), np.int16)])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), b / shard_name(0))
    with pytest.raises(KoboshiError, match="column member does not have the digest"):
        Dataset.open(b).sequences()


def test_missing_empty_and_foreign_data_sets(tmp_path, toy):
    with pytest.raises(KoboshiError, match="no data set at"):
        Dataset.open(tmp_path / "none")
    ShardWriter(tmp_path / "empty", toy.card()).finish()
    with pytest.raises(KoboshiError, match="is empty"):
        Dataset.open(tmp_path / "empty")
    a = toy.write(tmp_path / "a")
    with pytest.raises(KoboshiError, match="is of robot 'toy', not of 'unitree_h1'"):
        Dataset.open(a, expect_robot="unitree_h1")
    layouts = {"detector": [("joint_vel", 0, 3), ("joint_torque", 3, 3)]}
    other = toy.write(tmp_path / "b", layouts=layouts)
    with pytest.raises(KoboshiError, match="has other columns, layouts or joints"):
        Dataset.open([a, other])
    mine = toy.card().layout_hash("detector")
    Dataset.open(a, expect_layouts={"detector": mine})
    with pytest.raises(KoboshiError, match="of group 'detector'"):
        Dataset.open(other, expect_layouts={"detector": mine})
    with pytest.raises(KoboshiError, match="no column 'obs.policy'"):
        Dataset.open(a).sequences(["obs.policy"])


def test_a_wrong_card_is_refused(tmp_path, toy):
    card = json.loads((toy.write(tmp_path) / "card.json").read_text())
    for change, message in (
        ({"num_envs": "many"}, "num_envs"),
        ({"candidates": ["left_kne"]}, "did you mean 'left_knee'"),
        ({"extra": 1}, "extra"),
        ({"columns": {"reset": card["columns"]["reset"]}}, "has a column 'env'"),
        ({"layouts": {"detector": [["joint_pos", 0, 5]]}}, r"obs.detector has shape \(6,\), its terms 5"),
        ({"layouts": {"policy": []}}, "no observation group 'policy'"),
        ({"law": {**card["law"], "velocity": [1.0]}}, "law.velocity has 1 numbers for 3 joints"),
        ({"term_joints": {"joint_pos": ["tors"]}}, "did you mean 'torso'"),
    ):
        (tmp_path / "card.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(KoboshiError, match=message):
            Dataset.open(tmp_path)


def test_data_sets_of_several_lengths_stay_apart(tmp_path, toy):
    a, b = toy.write(tmp_path / "a"), toy.write(tmp_path / "b", chunk=toy.chunk(0, 20))
    long, short = Dataset.open([a, b]).sequences()
    assert (long.num_steps, short.num_steps) == (STEPS, 20)


def test_no_space_leaves_nothing_half_written(tmp_path, toy, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")

    def full(table, where, **options):
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(KoboshiError, match="no space left to write .*00000.parquet"):
        ShardWriter(tmp_path, toy.card()).append(toy.chunk())
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_no_space_for_the_decoded_columns_is_said_in_time(tmp_path, toy, monkeypatch):
    toy.write(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(KoboshiError, match="no space left to write .*npy"):
        Dataset.open(tmp_path).sequences()
    assert not list((tmp_path / "cache").rglob("*.npy"))
