"""`koboshi suggest clips`: whose values are far from their mean, by hand, and on a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koboshi.envs.cfg import RewardTerm
from koboshi.envs.terms import rewards
from koboshi.errors import KoboshiError
from koboshi.stages.suggest import _proposal, _worths, clips


def term(shape: str) -> RewardTerm:
    return RewardTerm(rewards.alive, -1.0, shape=shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "mean", "std", "most", "proposed"),
    [
        ("l2", 100.0, 50.0, 9000.0, (0.0, 250.0)),
        ("raw", 1.0, 2.0, 30.0, (-5.0, 7.0)),
        ("raw", -100.0, 33.0, 900.0, (-200.0, -1.0)),  # −199 and −1, to two digits
        ("l1", 100.0, 50.0, 249.0, None),  # never as far
        ("raw", 0.002, 0.045, 1.0, None),  # falls
        ("exp", 0.2, 0.3, 1.0, None),
        ("tanh", 0.1, 0.1, 1.0, None),
    ],
)
def test_proposals_by_hand(
    shape: str, mean: float, std: float, most: float, proposed: tuple[float, float] | None
) -> None:
    assert _proposal(term(shape), mean, std, most)[0] == proposed


def test_shares_and_means_of_the_rows() -> None:
    rows = [
        {"reward/a": 3.0, "reward/b": -1.0, **_value("a", 2.0, 0.5, 4.0), **_value("b", 1.0, 1.0, 8.0)},
        {"reward/a": None, "reward/b": -1.0, **_value("a", 4.0, 0.5, 6.0), **_value("b", 1.0, 1.0, 2.0)},
    ]
    a, b = _worths({"a": term("exp"), "b": term("l2")}, rows)
    assert (a.earned, a.share, a.mean, a.most) == (3.0, 0.75, 3.0, 6.0)
    assert (b.share, b.most, b.clip) == (0.25, 8.0, (0.0, 4.0))


def _value(name: str, mean: float, std: float, most: float) -> dict[str, float]:
    return {f"value/{name}/mean": mean, f"value/{name}/std": std, f"value/{name}/most": most}


def test_of_a_run(koboshi: Callable[..., Any], tmp_path: Path, tiny: list[str]) -> None:
    train = [part for part in tiny if part.startswith(("env.", "agent."))]
    assert koboshi("train", "go2-flat", "--name", "r", "--root", tmp_path, *train).code == 0
    done = koboshi("suggest", "clips", "go2-flat/r", "--root", tmp_path)
    assert done.code == 0 and "joint_acc" in done.out, done.err
    run = tmp_path / "go2-flat" / "r"
    assert (run / "rewards.png").stat().st_size > 1000
    done = koboshi("suggest", "clips", "go2-flat/s", "--root", tmp_path)
    assert done.code == 2 and "no run 'go2-flat/s'" in done.err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    old = [{k: v for k, v in row.items() if not k.startswith("value/")} for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    with pytest.raises(KoboshiError, match="made before they were logged"):
        clips(run, tmp_path)
