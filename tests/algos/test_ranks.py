"""Two processes learn what one learns from the union of their rollouts."""

from __future__ import annotations

from pathlib import Path

import torch
from rank import learn
from toy_env import assert_same

from processes import run_two


def test_two_processes_equal_one(tmp_path: Path) -> None:
    first, second = run_two(Path(__file__).with_name("rank.py"), tmp_path)
    own = {name: (first.pop(name), second.pop(name)) for name in ("own.start", "own.noise")}
    for name, (mine, theirs) in own.items():
        assert (mine - theirs).abs().min() > 1e-6, f"{name} is the same in both processes"
    assert_same(first, second)
    assert any(not torch.equal(first[n], first[n.replace("True", "False")]) for n in first if "True" in n)
    alone = learn(0, 1, masked=False) | learn(0, 1, masked=True)
    made_up = {n: v for n, v in first.items() if n.partition(".")[0] in ("True", "False")}
    assert_same(made_up, alone, tolerance=1e-5)
