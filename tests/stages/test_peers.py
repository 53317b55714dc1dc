"""The race of learners: who counts as walking, how long it took, and that all learn in the same environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from koboshi import config
from koboshi.bench import rsl_rl, skrl_ppo
from koboshi.errors import KoboshiError
from koboshi.stages import peers
from koboshi.tasks import make_task
from koboshi.tasks.task import TaskCfg

needs_libraries = pytest.mark.skipif(
    not (rsl_rl.installed() and skrl_ppo.installed()), reason="rsl_rl or skrl is not installed (extra bench)"
)


def small(*more: str) -> TaskCfg:
    return config.override(make_task("go2-flat"), ["env.num_envs=4", "agent.trainer.timesteps=96", *more])


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ROBOTS", 2)
    monkeypatch.setattr(peers, "SECONDS", 0.1)


@needs_libraries
@pytest.mark.parametrize("name", peers.PEERS)
def test_each_learns_and_acts_by_what_it_has_learnt(brief: None, name: str) -> None:
    peer = peers.make_peer(name, small(), 3)
    obs, reset = {"policy": torch.randn(5, 48)}, torch.zeros(5, dtype=torch.bool)
    with torch.no_grad():
        before = peer.policy().act(obs, peer.policy().initial_state(5, torch.device("cpu")), reset)[0].clone()
        again = peer.policy().act(obs, peer.policy().initial_state(5, torch.device("cpu")), reset)[0]
    assert before.shape == (5, 12) and torch.equal(before, again), "no noise"
    peer.iterate()
    with torch.no_grad():
        after = peer.policy().act(obs, peer.policy().initial_state(5, torch.device("cpu")), reset)[0]
    assert torch.isfinite(after).all() and not torch.allclose(after, before, atol=1e-4)


@needs_libraries
def test_the_noise_they_begin_with_is_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for name, module in (("rsl_rl", rsl_rl), ("skrl", skrl_ppo)):
        plain = module.learner
        monkeypatch.setattr(module, "learner", lambda *a, n=name, f=plain, **k: (seen.update({n: k}), f(*a, **k))[1])
        peers.make_peer(name, small("agent.network.init_log_std=-0.7"), 9)
        assert seen[name]["init_log_std"] == -0.7 and seen[name]["seed"] == 9


def test_a_race_ends_for_who_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four iterations of 96 steps each, two between tests: one walks at the first, one never, one at the last."""
    turns: list[str] = []
    errors = {"koboshi": [0.1], "rsl_rl": [0.3, 0.05], "skrl": [0.05, 0.05]}
    falls = {"skrl": 0.99}

    def make(name: str, task: TaskCfg, seed: int) -> peers.Peer:
        return peers.Peer(lambda: turns.append(name), lambda: name)  # type: ignore[arg-type, return-value]

    def judge(task: TaskCfg, policy: Any) -> dict[str, float]:
        return {"survival": falls.get(policy, 1.0), "vx_rmse": errors[policy].pop(0)}

    monkeypatch.setattr(peers, "make_peer", make)
    monkeypatch.setattr(peers, "_judge", judge)
    monkeypatch.setattr(peers, "seconds_of", lambda work: (work(), 2.0)[1])
    found = peers.race(small(), list(errors), 1, every=2)
    assert turns[:6] == ["koboshi", "rsl_rl", "skrl"] * 2 and turns[6:] == ["rsl_rl", "skrl"] * 2
    assert [found[name]["walks_s"] for name in errors] == [4.0, 8.0, None]
    assert [found[name]["walks_steps"] for name in errors] == [192, 384, None]
    assert found["koboshi"]["steps_per_s"] == 48.0
    assert [point["vx_rmse"] for point in found["rsl_rl"]["curve"]] == [0.3, 0.05]


def test_the_table_is_of_medians_and_of_ratios_within_a_race() -> None:
    def ran(seconds: float | None, rate: float = 10.0) -> dict[str, Any]:
        return {"walks_s": seconds, "walks_steps": None if seconds is None else 100 * seconds, "steps_per_s": rate}

    parts = [
        {"koboshi": ran(10.0, 8.0), "rsl_rl": ran(30.0), "skrl": ran(5.0)},
        {"koboshi": ran(20.0, 9.0), "rsl_rl": ran(30.0), "skrl": ran(None)},
        {"koboshi": ran(10.0, 2.0), "rsl_rl": ran(20.0), "skrl": ran(None)},
    ]
    rows = peers.table(parts)
    assert rows["koboshi"]["walks_s"] == [10.0, 20.0, 10.0] and rows["koboshi"]["ratio"] == 1.0
    assert rows["koboshi"]["steps_per_s"] == 8.0
    assert rows["rsl_rl"]["ratio"] == 2.0  # 3, 1.5, 2
    assert rows["skrl"]["ratio"] is None and rows["skrl"]["walks_steps"] == [500.0, None, None]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rsl", [], "no peer 'rsl'; did you mean 'rsl_rl'"),
        ("skrl", ["agent.epochs=3"], "compared with agent.epochs=5, not 3"),
        ("skrl", ["agent.network.actor.hidden=[64]"], r"agent.network.actor.hidden=\(128, 128, 128\), not \(64,\)"),
    ],
)
def test_what_is_no_race(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        peers.make_peer(name, small(*settings), 1)


def test_the_script_makes_what_is_missing_and_shows_all(tmp_path: Path) -> None:
    made = {"walks_s": 3.0, "walks_steps": 900, "steps_per_s": 300.0, "curve": [{"seconds": 3.0, "vx_rmse": 0.09}]}
    folder = tmp_path / "go2-flat"
    folder.mkdir()
    (folder / "seed-7.json").write_text(json.dumps({"found": {"koboshi": made}}))
    script = Path(__file__).parents[2] / "benchmarks" / "peers.py"
    words = [sys.executable, str(script), "env.num_envs=4", "agent.trainer.timesteps=24", "--seed", "7", "--seed", "8"]
    done = subprocess.run([*words, "--peer", "koboshi", "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3, never" in done.stdout
    assert json.loads((folder / "seed-8.json").read_text())["found"]["koboshi"]["walks_s"] is None
    assert (folder / "peers.png").stat().st_size > 1000
