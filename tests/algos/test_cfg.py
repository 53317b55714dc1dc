"""Settings that cannot be."""

from __future__ import annotations

import pytest

from koboshi.algos.ppo import PPOCfg
from koboshi.config import override
from koboshi.errors import KoboshiError


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("trainer.device=cdua:0", "no learning device 'cdua:0'; did you mean 'cuda'? learning devices: cpu, cuda"),
        ("trainer.rollout=0", "agent.trainer.rollout must be at least 1, not 0"),
        ("epochs=0", "agent.epochs must be at least 1, not 0"),
        ("desired_kl=0", "agent.desired_kl must be above 0, not 0"),
        ("learning_rate_range=[0.1, 0.01]", "agent.learning_rate_range ascends, not (0.1, 0.01)"),
        ("network.log_std_range=[1.0, -5.0]", "agent.network.log_std_range ascends, not (1.0, -5.0)"),
        ("final_kl=0", "agent.final_kl must be above 0 (or null), not 0"),
        ("gamma=1.5", "agent.gamma and agent.lam are from 0 to 1, not 1.5"),
    ],
)
def test_each_is_named(assignment: str, says: str) -> None:
    with pytest.raises(KoboshiError) as error:
        override(PPOCfg(), [assignment])
    assert says in str(error.value)


def test_a_numbered_device_is_one() -> None:
    assert override(PPOCfg(), ["trainer.device=cuda:1"]).trainer.device == "cuda:1"


def test_the_kl_that_is_aimed_at_falls_over_the_last_third() -> None:
    cfg = override(PPOCfg(), ["trainer.timesteps=720", "trainer.rollout=24", "desired_kl=0.03", "final_kl=0.01"])
    assert [cfg.aimed_kl(i) for i in (0, 20, 25, 30, 31)] == pytest.approx([0.03, 0.03, 0.02, 0.01, 0.01])
    assert PPOCfg().aimed_kl(10**9) == PPOCfg().desired_kl
    assert override(cfg, ["desired_kl=0.004"]).aimed_kl(30) == pytest.approx(0.004), "it never rises"
