"""The race of learners: who counts as walking, how long it took, and that all learn in the same environment."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from koboshi import config
from koboshi.bench import rsl_rl, skrl_ppo
from koboshi.envs import Env
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
    from rsl_rl.runners import OnPolicyRunner

    seen = {}
    for name, module in (("rsl_rl", rsl_rl), ("skrl", skrl_ppo)):
        plain = module.learner
        monkeypatch.setattr(module, "learner", lambda *a, n=name, f=plain, **k: (seen.update({n: k}), f(*a, **k))[1])
        peers.make_peer(name, small("agent.network.init_log_std=-0.7"), 9)
        assert seen[name]["init_log_std"] == -0.7 and seen[name]["seed"] == 9
    env = Env(small().env)
    with pytest.MonkeyPatch.context() as patch:
        built: list[Any] = []
        plain_runner = OnPolicyRunner.__init__
        patch.setattr(
            OnPolicyRunner, "__init__", lambda self, *a, **k: (built.append(self), plain_runner(self, *a, **k))[1]
        )
        rsl_rl.learner(env, 100, init_log_std=-0.7)
    std = built[0].alg.get_policy().distribution.std_param
    torch.testing.assert_close(std, torch.full_like(std, math.exp(-0.7)))


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
    monkeypatch.setattr(peers, "_INSTALLED", {})
    found = peers.race(small(), list(errors), 1, every=2)
    assert turns[:6] == ["koboshi", "rsl_rl", "skrl"] * 2 and turns[6:] == ["rsl_rl", "skrl"] * 2
    assert [found[name]["walks_s"] for name in errors] == [4.0, 8.0, None]
    assert [found[name]["walks_steps"] for name in errors] == [192, 384, None]
    assert found["koboshi"]["steps_per_s"] == 48.0
    assert [point["vx_rmse"] for point in found["rsl_rl"]["curve"]] == [0.3, 0.05]


def test_the_end_is_tested_too(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []
    monkeypatch.setattr(peers, "make_peer", lambda *_: peers.Peer(lambda: None, lambda: None))  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(peers, "_judge", lambda *_: (judged.append(1), {"survival": 1.0, "vx_rmse": 0.2})[1])
    found = peers.race(small(), ["koboshi"], 1, every=3)
    assert [point["steps"] for point in found["koboshi"]["curve"]] == [288, 384] and len(judged) == 2


def test_peers_draw_as_if_they_were_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[float]] = {"koboshi": [], "koboshi plain": []}

    def make(name: str, task: TaskCfg, seed: int) -> peers.Peer:
        return peers.Peer(lambda: drawn[name].append(torch.rand(()).item()), lambda: None)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(peers, "make_peer", make)
    monkeypatch.setattr(peers, "_judge", lambda *_: {"survival": 0.0, "vx_rmse": torch.rand(()).item()})
    peers.race(small(), list(drawn), 4, every=2)
    alone = torch.Generator().manual_seed(4)
    expected = [torch.rand((), generator=alone).item() for _ in range(4)]
    assert drawn["koboshi"] == drawn["koboshi plain"] == expected


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
    without = [{name: found for name, found in part.items() if name != "koboshi"} for part in parts]
    assert peers.table(without)["rsl_rl"]["ratio"] is None


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rsl", [], "no peer 'rsl'; did you mean 'rsl_rl'"),
        ("skrl", ["agent.epochs=3", "agent.gamma=0.9"], r"differ: epochs: 5 -> 3; gamma: 0.99 -> 0.9"),
        ("skrl", ["agent.trainer.rollout=8"], "trainer.rollout: 24 -> 8"),
        ("skrl", ["agent.network.actor.type=EstCfg"], "network.actor"),
    ],
)
def test_what_is_no_race(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        peers.make_peer(name, small(*settings), 1)


def script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = Path(__file__).parents[2] / "benchmarks" / "peers.py"
    usual = ["env.num_envs=4", "agent.trainer.timesteps=24", "evaluate.commands.lin_vel_x=[0.1,0.1]"]
    whole = [sys.executable, str(path), *usual, *words, "--out", str(folder)]
    return subprocess.run(whole, capture_output=True, text=True)


def test_the_script_makes_what_is_missing_and_shows_all(tmp_path: Path) -> None:
    done = script(tmp_path, "--peer", "koboshi", "--seed", "8", "--seed", "8")
    assert done.returncode == 0, done.stderr
    assert "never" in done.stdout
    file = tmp_path / "go2-flat" / "seed-8.json"
    part = json.loads(file.read_text())
    assert part["found"]["koboshi"]["walks_s"] is None and len(part["found"]["koboshi"]["curve"]) == 1
    part["found"]["koboshi"] |= {"walks_s": 3.0, "walks_steps": 900}
    file.write_text(json.dumps(part))
    done = script(tmp_path, "--peer", "koboshi", "--seed", "8")
    assert done.returncode == 0 and " 3 " in done.stdout, "raced again"
    assert (tmp_path / "go2-flat" / "peers.png").stat().st_size > 1000
    done = script(tmp_path, "--peer", "koboshi", "--seed", "8", "env.num_envs=8")
    assert done.returncode == 2 and "raced with other settings" in done.stderr and "Traceback" not in done.stderr
    done = script(tmp_path, "--peer", "skrll")
    assert done.returncode == 2 and done.stderr.startswith("koboshi: no peer 'skrll'; did you mean 'skrl'?")
    assert len(done.stderr.splitlines()) == 1
