"""Two processes of `torchrun` train the detector that one trains, also over a kill."""

from __future__ import annotations

from pathlib import Path

import torch
from detector_rank import learn

from processes import run_two


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    first, second = run_two(Path(__file__).with_name("detector_rank.py"), tmp_path)
    alone = learn(tmp_path / "alone")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, alone[name], atol=2e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    assert first["last.iteration"] > 12 and first["last.hidden"].abs().sum(1).min() > 0
