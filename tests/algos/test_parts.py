"""Updates in parts, side by side in threads, against the same updates as a whole."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest
import torch
from toy_env import MIRROR, PointEnv, SpaceEnv, assert_same, network, random_rollout, small_cfg

from koboshi.algos.ppo import PPO, GruCfg, MlpCfg, NetworkCfg
from koboshi.algos.ppo.batch import Batch
from koboshi.algos.ppo.objective import Gradient, Objective, joined
from koboshi.nets import parts

M = 6


Cores = Callable[[int], None]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each gradient was of."""
    seen: list[int] = []
    gradient = Objective.gradient

    def noted(self: Objective, batch: Batch, *args: object) -> Gradient:
        seen.append(batch.log_prob.numel())
        return gradient(self, batch, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "gradient", noted)
    return seen


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("actor", [MlpCfg(hidden=(16,)), GruCfg(units=8, hidden=())])
def test_parts_learn_what_the_whole_learns(actor: MlpCfg | GruCfg, masked: bool, cores: Cores, rows: list[int]) -> None:
    shape = NetworkCfg(actor, critic_hidden=(16,))
    cfg = small_cfg(network=shape, kl_stop=0.05, entropy_coef=0.1, desired_kl=1e-3)
    states, logs = [], []
    for count in (1, 3):
        ppo = PPO(SpaceEnv(2 * M), cfg, members=2)
        cores(count)
        rows.clear()
        for seed in (1, 2):
            rollout = random_rollout(2 * M, seed)
            rollout.state = ppo.policy.initial_state(M)
            if masked:
                # Member 0 has nothing valid in all but one environment, so parts of it have nothing at all.
                rollout.valid = torch.rand(rollout.valid.shape, generator=torch.Generator().manual_seed(seed)) > 0.3
                rollout.valid[:, 1:M] = False
            logs.append(ppo.update(rollout))
        # Two updates of two epochs of two minibatches, each of 2·6·8 / 2 rows.
        assert sum(rows) == 2 * 2 * 2 * 48 and len(rows) == 8 * count
        states.append(ppo.policy.state_dict() | {"rate": ppo.learning_rate})
    assert_same(states[0], states[1], tolerance=1e-5)
    for whole, split in zip(logs[:2], logs[2:], strict=True):
        assert split == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_the_mirror_loss_in_parts_by_hand(cores: Cores, rows: list[int]) -> None:
    # As for a whole minibatch: w·(−x) + b + (w·x + b) = 2·b.
    ppo = PPO(PointEnv(16), small_cfg(network=network(), epochs=1, minibatches=1), mirror=MIRROR)
    ppo.policy.actor.network.layers[0].bias.data[:] = 0.5
    cores(2)
    assert ppo.update(ppo.collect())["loss/mirror"] == pytest.approx(1.0)
    assert rows == [64, 64]


def test_means_over_parts_by_hand() -> None:
    # Member 0 has 3 and 1 valid rows, member 1 none.
    first = Gradient(torch.tensor([[12.0], [0.0]]), torch.tensor([[24.0, 0.0]]), torch.tensor([3.0, 0.0]))
    second = Gradient(torch.tensor([[-4.0], [0.0]]), torch.tensor([[4.0, 0.0]]), torch.tensor([1.0, 0.0]))
    both = joined([first, second])
    assert both.value.tolist() == [[2.0], [0.0]]
    assert both.figures.tolist() == [[7.0, 0.0]]
    assert both.rows.tolist() == [4.0, 0.0]


def test_a_loss_of_the_actors_own_sees_the_whole_minibatch(cores: Cores, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = PPO(SpaceEnv(M), small_cfg(minibatches=1, epochs=1))
    seen: list[int] = []

    def spread(batch: Batch) -> torch.Tensor:
        seen.append(batch.log_prob.shape[1])
        return ppo.policy.actor(batch.obs, (), batch.begins)[0].var(1).sum(1, keepdim=True)

    monkeypatch.setattr(ppo.policy.actor, "auxiliary_loss", spread)
    cores(2)
    ppo.update(random_rollout(M, 1))
    assert seen == [M * 8]


def test_how_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cpu = torch.device("cpu")
    found = {rows: parts.count_of_parts(cpu, rows) for rows in (1, 1024, 2047, 2048, 3072, 10_000)}
    assert found == {1: 1, 1024: 1, 2047: 1, 2048: 2, 3072: 3, 10_000: 4}
    assert parts.count_of_parts(torch.device("meta"), 10_000) == 1


def test_rows_of_a_memory_are_all_steps_of_its_environments(
    cores: Cores, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = NetworkCfg(GruCfg(units=4, hidden=()), critic_hidden=())
    ppo = PPO(SpaceEnv(M), small_cfg(network=shape, epochs=1, minibatches=1))
    rollout = random_rollout(M, 1)
    rollout.state = ppo.policy.initial_state(M)
    cores(4)
    monkeypatch.setattr(parts, "FEWEST_ROWS", M * 8 // 2)
    ppo.update(rollout)
    assert rows == [M * 8 // 2] * 2


def test_threads_keep_to_their_cores_and_leave_the_callers_alone() -> None:
    torch.set_num_threads(4)
    try:
        threads = parts.in_parts(lambda x: (x, torch.get_num_threads()), [5, 3])
        assert threads == [(5, 2), (3, 2)]
        assert torch.get_num_threads() == 4
        anew: list[int] = []
        thread = Thread(target=lambda: anew.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert anew == [4], "nor those that begin later"
        assert parts.in_parts(lambda x: (x, torch.get_num_threads()), [1]) == [(1, 4)]
    finally:
        torch.set_num_threads(1)


def test_what_fails_in_a_part_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        parts.in_parts(lambda x: 1 // x, [1, 0])
