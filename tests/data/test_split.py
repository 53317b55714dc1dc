import json

import pytest
import torch

from koboshi.data import PARTS, Dataset, draw_split
from koboshi.data.split import SPLIT_FILE
from koboshi.errors import KoboshiError


@pytest.fixture
def data(tmp_path, toy):
    """A data set of 12 episodes."""
    return Dataset.open(toy.write(tmp_path))


def record_of(data):
    return json.loads((data.folders[0].path / SPLIT_FILE).read_text())


def alter(dataset, **changes):
    path = dataset.folders[0].path / SPLIT_FILE
    path.write_text(json.dumps(record_of(dataset) | changes))


def test_it_is_by_episode_repeatable_and_leaves_nothing_out(data):
    draw_split(data, 0.25, 0.17, seed=1)
    first = record_of(data)
    draw_split(data, 0.25, 0.17, seed=1)
    assert record_of(data) == first
    assert [len(first[name]) for name in PARTS] == [7, 3, 2]
    assert sorted(first["train"] + first["calibrate"] + first["test"]) == list(range(12))
    (seq,) = data.sequences()
    for i, name in enumerate(PARTS):
        assert seq["episode"][seq.part == i].unique().tolist() == first[name]
    draw_split(data, 0.25, 0.17, seed=2)
    assert record_of(data) != first


def test_an_existing_split_is_kept_where_that_is_asked_for(data):
    assert draw_split(data, 0.25, 0.25, seed=1, redraw=False) == [str(data.folders[0].path)]
    before = record_of(data)
    assert draw_split(data, 0.25, 0.25, seed=2, redraw=False) == [] and record_of(data) == before


def test_without_a_split_no_row_is_in_a_part(data):
    assert data.sequences()[0].part.unique().tolist() == [-1]
    assert list(data.split_digests().values()) == [None] and not data.check_split({}, "a detector")


@pytest.mark.parametrize("one", PARTS)
@pytest.mark.parametrize("other", PARTS)
def test_an_episode_in_two_parts_is_refused(data, one, other):
    draw_split(data, 0.25, 0.25, seed=1)
    if one == other:
        return
    record = record_of(data)
    alter(data, **{one: [*record[one], record[other][0]]})
    with pytest.raises(KoboshiError, match=f"mixes .*: episodes {record[other][0]} are in both"):
        data.sequences()


def test_splits_of_other_data_or_other_versions_are_refused(data, tmp_path):
    draw_split(data, 0.25, 0.25, seed=1)
    alter(data, train=[0], calibrate=[1], test=[2])
    with pytest.raises(KoboshiError, match="of another data set: episodes .* are in no part"):
        data.sequences()
    alter(data, data="0")
    with pytest.raises(KoboshiError, match="is of other data"):
        data.sequences()
    (tmp_path / SPLIT_FILE).write_text(json.dumps({"train": [0], "test": [1]}))
    with pytest.raises(KoboshiError, match="has not the lists train, calibrate, test"):
        data.sequences()


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5)])
def test_shares_that_leave_a_part_empty_are_refused(data, shares):
    with pytest.raises(KoboshiError, match="leaves a part empty"):
        draw_split(data, *shares, seed=0)


def test_small_shares_still_give_every_part_an_episode(data):
    for shares in ((0.001, 0.001), (0.95, 0.04), (0.04, 0.95)):
        draw_split(data, *shares, seed=0)
        assert all(record_of(data)[name] for name in PARTS), shares


def test_an_altered_split_is_noticed(data, tmp_path, toy):
    draw_split(data, 0.25, 0.25, seed=1)
    digests = data.split_digests()
    assert data.check_split(digests, "the detector")
    record = record_of(data)
    # An episode that was trained on becomes a test episode.
    alter(data, train=record["train"][1:], test=[*record["test"], record["train"][0]])
    with pytest.raises(KoboshiError, match="the split of data set .* was altered since the detector was trained"):
        data.check_split(digests, "the detector")
    (tmp_path / SPLIT_FILE).unlink()
    with pytest.raises(KoboshiError, match="is gone since the detector"):
        data.check_split(digests, "the detector")
    other = Dataset.open(toy.write(tmp_path / "b", chunk=toy.chunk(0, 20)))
    assert not other.check_split(digests, "the detector"), "data it never saw"
    draw_split(data, 0.25, 0.25, seed=1)
    with pytest.raises(KoboshiError, match="has a split and .* has none"):
        Dataset.open([tmp_path, tmp_path / "b"]).check_split(digests, "the detector")


def test_the_digest_does_not_depend_on_the_order_of_episodes(data):
    draw_split(data, 0.25, 0.25, seed=1)
    before = data.split_digests()
    record = record_of(data)
    alter(data, train=record["train"][::-1])
    assert data.split_digests() == before
    assert torch.equal(data.sequences()[0].part, data.sequences()[0].part)
