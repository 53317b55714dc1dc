"""Updates from made-up rollouts: stacks, masks, mirrors, stops and rates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_env import MIRROR, PointEnv, assert_same, columns, learner, network, random_rollout, small_cfg

from koboshi.algos.ppo import PPO, MlpCfg, NetworkCfg, TrainerCfg
from koboshi.algos.ppo.objective import FIGURES
from koboshi.errors import KoboshiError

M = 10
"""Environments of each member."""


def part(k: int) -> torch.Tensor:
    return torch.arange(k * M, (k + 1) * M)


def trained_state(ppo: PPO, k: int) -> dict[str, torch.Tensor]:
    """All that a member has learnt."""
    optimizer = {f"optimizer.{n}": v[k] for n, v in ppo.optimizer.state_dict().items()}
    return ppo.policy.member(k) | optimizer | {"rate": ppo.learning_rate[k].clone()}


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_stack_of_three_equals_three_runs_of_one(discrete: bool, masked: bool) -> None:
    alone = [learner(1, M, discrete=discrete) for _ in range(3)]
    stack = learner(3, M, discrete=discrete)
    for k, ppo in enumerate(alone):
        ppo.policy.set_member(0, stack.policy.member(k))
    for seed in (1, 2):
        rollout = random_rollout(3 * M, seed, discrete=discrete)
        if masked:
            rollout.valid = torch.rand(rollout.valid.shape, generator=torch.Generator().manual_seed(seed)) > 0.3
        stack.update(rollout)
        for k, ppo in enumerate(alone):
            ppo.update(columns(rollout, part(k)))
    for k, ppo in enumerate(alone):
        assert_same(trained_state(stack, k), trained_state(ppo, 0), tolerance=1e-5)


def test_masked_and_unmasked_agree_where_all_is_valid() -> None:
    # One invalid transition of a fourth member sends all four through the masked path.
    plain, masked = learner(3, M), learner(4, M)
    for k in range(3):
        masked.policy.set_member(k, plain.policy.member(k))
    for seed in (1, 2):
        rollout = random_rollout(4 * M, seed)
        rollout.valid[0, 3 * M] = False
        masked.update(rollout)
        plain.update(columns(rollout, torch.arange(3 * M)))
    for k in range(3):
        assert_same(trained_state(masked, k), trained_state(plain, k), tolerance=1e-5)


def test_nothing_valid_changes_nothing() -> None:
    ppo = learner(2, M)
    ppo.update(random_rollout(2 * M, 1))  # so that there are moments that could go on moving
    before = [trained_state(ppo, k) for k in range(2)]
    rollout = random_rollout(2 * M, 2)
    rollout.valid[:, M:] = False
    ppo.update(rollout)
    assert_same(trained_state(ppo, 1), before[1])
    assert not torch.equal(ppo.policy.member(0)["log_std"], before[0]["log_std"])
    rollout.valid[:] = False
    before = [trained_state(ppo, k) for k in range(2)]
    ppo.update(rollout)
    for k in range(2):
        assert_same(trained_state(ppo, k), before[k])


def test_what_is_not_valid_teaches_nothing() -> None:
    states = []
    for scale in (1.0, 50.0):
        ppo = learner(1, M)
        rollout = random_rollout(M, 1)
        rollout.valid[:, 0] = False
        for x in (*rollout.obs.values(), rollout.action):
            x[:, 0] *= scale
        rollout.reward[:, 0] *= scale
        ppo.update(rollout)
        states.append(trained_state(ppo, 0))
    assert_same(states[0], states[1])


def test_each_member_stops_once_its_own_kl_is_too_large() -> None:
    cfg = small_cfg(schedule="fixed", kl_stop=1e-3, epochs=5, minibatches=1)
    ppo = learner(2, M, cfg)
    ppo.learning_rate = torch.tensor([0.0, 0.1])
    ppo.update(random_rollout(2 * M, 1))
    assert ppo.optimizer.steps.flatten().tolist() == [5, 1]


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({"schedule": "fixed"}, 1e-3),
        ({"desired_kl": 1e3}, 1.5 * 1e-3),  # far too small a change at the second step: up; the first shows none
        ({"desired_kl": 1e3, "learning_rate_range": (1e-5, 1.2e-3)}, 1.2e-3),
        ({"desired_kl": 1e3, "epochs": 1}, 1e-3),
        ({"desired_kl": 1e3, "epochs": 1, "minibatches": 3}, 1e-3 * 1.5**2),
        ({"desired_kl": 1e-10}, 1e-3 / 1.5),  # too much
        ({"desired_kl": 1e-10, "epochs": 5}, 1e-3 * 1.5**-4),
    ],
)
def test_schedule_of_the_learning_rate(settings: dict[str, object], rate: float) -> None:
    ppo = learner(1, M, small_cfg(**{"minibatches": 1, "learning_rate": 1e-3} | settings))
    ppo.update(random_rollout(M, 1))
    assert ppo.learning_rate.tolist() == pytest.approx([rate])


def test_the_rate_follows_the_kl_that_is_aimed_at_by_then() -> None:
    ppo = learner(1, M, small_cfg(minibatches=1, learning_rate=1e-3, desired_kl=1e3, final_kl=1e-10))
    ppo.iteration = ppo.cfg.trainer.iterations
    ppo.update(random_rollout(M, 1))
    assert ppo.learning_rate.tolist() == pytest.approx([1e-3 / 1.5])


def test_no_change_at_all_is_no_reason_to_raise_the_rate() -> None:
    # So small a rate leaves the policy as it is, step after step: KL 0. Zeros, so that rounding cannot differ.
    ppo = learner(1, M, small_cfg(desired_kl=1e3, minibatches=1, epochs=3, learning_rate_range=(0.0, 1.0)))
    ppo.parameters.value.zero_()
    ppo.learning_rate = torch.tensor([1e-30])
    ppo.update(random_rollout(M, 1))
    assert ppo.learning_rate.tolist() == [pytest.approx(1e-30)]


def mirrored_learner(**settings: object) -> PPO:
    """A linear policy a = w·x + b of the point on a line, whose mirror map is −1 for both."""
    cfg = small_cfg(network=network(), epochs=1, minibatches=1, **settings)
    return PPO(PointEnv(16), cfg, mirror=MIRROR)


def test_a_symmetric_policy_has_no_mirror_loss() -> None:
    ppo = mirrored_learner()
    assert ppo.update(ppo.collect())["loss/mirror"] == 0


def test_mirror_loss_of_a_bias_by_hand_and_its_fall() -> None:
    # w·(−x) + b + (w·x + b) = 2·b.
    ppo = mirrored_learner(mirror_coef=1.0, schedule="fixed", learning_rate=0.02)
    ppo.policy.actor.network.layers[0].bias.data[:] = 0.5
    found = [ppo.update(ppo.collect())["loss/mirror"] for _ in range(30)]
    assert found[0] == pytest.approx(1.0)
    assert found[-1] < 0.1


def test_the_mirror_loss_looks_at_half_of_the_rows() -> None:
    ppo = PPO(PointEnv(16), small_cfg(network=NetworkCfg(MlpCfg(hidden=(8,)), critic_hidden=())), mirror=MIRROR)
    batch = ppo._prepare(ppo.collect())
    x, steps = batch.obs["policy"], ppo.cfg.trainer.rollout

    def act(x: torch.Tensor) -> torch.Tensor:
        return ppo.policy.actor({"policy": x}, (), batch.begins)[0]

    error = (act(-x) + act(x)).square().sum(2).detach()
    found = ppo._objective.gradient(batch, steps, ppo._old_log_std)
    half = error.shape[1] // 2
    assert found.figures[FIGURES.index("mirror")] / found.rows == pytest.approx(error[:, :half].mean().item(), rel=1e-4)
    assert error[:, :half].mean() != pytest.approx(error.mean().item(), rel=1e-3), "all rows alike: it says little"


def test_the_normaliser_of_a_mirrored_policy_is_symmetric() -> None:
    ppo = mirrored_learner()
    ppo.update(ppo.collect())
    assert ppo.policy.norm("policy").mean.item() == 0
    assert ppo.policy.norm("policy").var.item() > 0.1


def test_log_std_comes_back_from_its_bounds() -> None:
    # It starts at the lower bound; only entropy pulls, and must be able to.
    shape = network(init_log_std=-1.0, log_std_range=(-1.0, 0.0))
    cfg = small_cfg(network=shape, schedule="fixed", learning_rate=0.1, entropy_coef=-1e3)
    ppo = learner(1, M, cfg)
    ppo.update(random_rollout(M, 1))
    assert ppo.policy.log_std is not None and ppo.policy.log_std.eq(-1.0).all()
    drawn = learner(1, M, replace(cfg, entropy_coef=1e3))
    drawn.load_state_dict(ppo.state_dict())
    for seed in range(2, 12):
        drawn.update(random_rollout(M, seed))
    assert drawn.policy.log_std is not None and drawn.policy.log_std.eq(0.0).all()


def test_environments_must_divide_among_members() -> None:
    with pytest.raises(KoboshiError, match="10 environments cannot be divided among 3 policies"):
        PPO(PointEnv(10), small_cfg(trainer=TrainerCfg(rollout=2)), members=3)


def test_statistics_move_with_what_was_seen() -> None:
    ppo, rollout = learner(1, M), random_rollout(M, 1)
    for group, x in rollout.obs.items():
        x.mul_(3.0).add_(5.0 if group == "policy" else -2.0)
    batch = ppo._prepare(rollout)
    for group, x in rollout.obs.items():
        torch.testing.assert_close(ppo.policy.norm(group).mean[0, 0], x.mean((0, 1)))
        torch.testing.assert_close(ppo.policy.norm(group).var[0, 0], x.var((0, 1), correction=0))
    # The first targets are the returns with mean 0 and deviation 1.
    assert ppo.policy.value_norm.count.item() == rollout.reward.numel()
    assert batch.target.mean().item() == pytest.approx(0, abs=1e-5)
    assert batch.target.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_values_keep_their_unit_when_the_statistics_move() -> None:
    ppo = learner(2, M)
    obs = {"critic": torch.randn(2, 7, 5)}
    ppo.policy.update_value_statistics(torch.randn(2, 50) * 3 + 4, None)  # the first: gives the unit
    before, bias = ppo.policy.value(obs), ppo.policy.critic.network.layers[-1].bias.clone()
    returns = torch.randn(2, 400) * torch.tensor([[0.1], [30.0]]) - 20
    mask = torch.ones(2, 400, dtype=torch.bool)
    ppo.policy.update_value_statistics(returns, mask)
    assert not torch.equal(ppo.policy.critic.network.layers[-1].bias, bias)
    torch.testing.assert_close(ppo.policy.value(obs), before, rtol=1e-4, atol=1e-4)


def test_old_values_are_the_critics_outputs_in_the_new_unit() -> None:
    # So that the first step sees no change of its own making: the value clip starts at 0.
    ppo = learner(2, M)
    for seed in (1, 2):
        batch = ppo._prepare(random_rollout(2 * M, seed))
        torch.testing.assert_close(ppo.policy.critic_output(batch.obs), batch.value, rtol=1e-4, atol=1e-4)


def test_rare_large_returns_are_not_clipped() -> None:
    ppo, rollout = learner(1, M), random_rollout(M, 1)
    for seed in range(5):
        ppo._prepare(random_rollout(M, seed))
    rollout.reward[-1, 0] = -1e4
    rollout.terminated[-1, 0] = True
    batch = ppo._prepare(rollout)
    value = ppo.policy.value_norm.denormalize(batch.target.unsqueeze(2))[0, :, 0]
    assert batch.target.min() < -15
    assert value.min().item() == pytest.approx(-1e4, rel=1e-4)
