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
        ("gamma=1.5", "agent.gamma and agent.lam are from 0 to 1, not 1.5"),
    ],
)
def test_each_is_named(assignment: str, says: str) -> None:
    with pytest.raises(KoboshiError) as error:
        override(PPOCfg(), [assignment])
    assert says in str(error.value)


def test_a_numbered_device_is_one() -> None:
    assert override(PPOCfg(), ["trainer.device=cuda:1"]).trainer.device == "cuda:1"
