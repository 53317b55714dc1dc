"""What `collect` records, against a twin of the environment that is stepped by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from koboshi import config
from koboshi.data import Dataset
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter
from koboshi.stages.collect import collect, collect_env_cfg
from koboshi.tasks import make_task

STEPS, N, J = 26, 6, len(UNITREE_H1.joint_names)
SETTINGS = [
    f"collect.num_envs={N}", f"collect.steps={STEPS}", "collect.shard_steps=8", "collect.groups=[detector, critic]",
    "env.episode_length_s=0.2", "collect.onset_s=[0.0,0.1]",
]  # fmt: skip


class Nods:
    """A policy without weights whose action tells the step."""

    def initial_state(self, num_envs: int, device: torch.device) -> Tensor:
        return torch.zeros(num_envs)

    def act(self, obs: dict[str, Tensor], state: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        return nod(state), state + 1


def nod(state: Tensor) -> Tensor:
    return (0.3 * torch.sin(state))[:, None].expand(-1, J).clone()


def test_rows_and_true_next_observations_are_the_environments(tmp_path: Path) -> None:
    task = config.override(make_task("h1-dead-joint"), SETTINGS)
    weights = tmp_path / "policy.safetensors"
    weights.write_bytes(b"")
    collect(task, Controller(Nods(), None, HealthyRouter(J)), weights, tmp_path / "data", 1)
    (found,) = Dataset.open(tmp_path / "data").sequences(next_obs=True)
    twin, everyone = Env(collect_env_cfg(task)), torch.arange(N)
    obs = twin.reset(task.collect.seed + 1)  # type: ignore[union-attr]
    cut = 0
    for t in range(STEPS):
        for group in ("detector", "critic"):
            assert torch.equal(found[f"obs.{group}"][t], obs[group])
        assert torch.equal(found["severity"][t], twin.faults.severity)
        action = nod(torch.full((N,), float(t)))
        step = twin.step(action)
        assert torch.equal(found["action"][t], action) and torch.equal(found["reward"][t], step.reward)
        assert torch.equal(found["truncated"][t], step.truncated)
        for group in ("detector", "critic"):
            seen = found.next_obs(group, torch.full((N,), t), everyone)
            assert torch.equal(seen, step.final_obs[group])
            cut += int((step.final_obs[group] != step.obs[group]).any())
        obs = step.obs
    assert cut >= 4, "no episode ended in another observation: the test says little"


def test_commands_of_recordings_may_be_to_stand_more_often() -> None:
    task = config.override(make_task("h1-dead-joint"), [*SETTINGS, "collect.standing_fraction=1"])
    env = Env(collect_env_cfg(task))
    env.reset(1)
    assert task.env.command.standing_fraction < 1 and not env.command.value.any()
    with pytest.raises(KoboshiError, match="collect.standing_fraction is from 0 to 1 .or null., not 1.5"):
        config.override(make_task("h1-dead-joint"), ["collect.standing_fraction=1.5"])
