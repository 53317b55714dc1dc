"""The settings of PPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from koboshi.algos.learner import TrainerCfg
from koboshi.errors import KoboshiError, at_least
from koboshi.policies import NetworkCfg
from koboshi.vec_env import MirrorMap, VecEnv

if TYPE_CHECKING:
    from koboshi.algos.ppo.ppo import PPO


@dataclass(frozen=True)
class PPOCfg:
    """Schulman et al. 2017 with the usual additions; values as in rsl_rl's settings for humanoids."""

    trainer: TrainerCfg = TrainerCfg()
    network: NetworkCfg = NetworkCfg()
    epochs: int = 5
    minibatches: int = 4
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float | None = 0.2
    value_coef: float = 1.0
    entropy_coef: float = 0.01
    max_grad_norm: float = 1.0
    learning_rate: float = 1e-3
    schedule: Literal["adaptive", "fixed"] = "adaptive"
    """`adaptive`: the rate follows the KL divergence between the old and the new policy. `fixed`: it stays, and
    `learning_rate_range`, `desired_kl` and `final_kl` do not matter."""
    learning_rate_range: tuple[float, float] = (1e-5, 3e-3)
    desired_kl: float = 0.01
    final_kl: float | None = None
    """Over the last third of the iterations the divergence that is aimed at falls to this, from `desired_kl` where that
    is larger, so that a policy that learnt in large steps settles."""
    kl_stop: float | None = None
    """A member stops its epochs once its KL exceeds this."""
    mirror_coef: float = 0.5
    """Weight of ‖π(M o) − M π(o)‖² on half of each minibatch, where the task has a mirror map."""

    def validate(self) -> None:
        for name in ("epochs", "minibatches"):
            at_least(f"agent.{name}", getattr(self, name), 1)
        if not 0 < self.gamma <= 1 or not 0 <= self.lam <= 1:
            raise KoboshiError(f"agent.gamma and agent.lam are from 0 to 1, not {self.gamma}, {self.lam}")
        for name, (low, high) in (
            ("agent.learning_rate_range", self.learning_rate_range),
            ("agent.network.log_std_range", self.network.log_std_range),
        ):
            if not low <= high:
                raise KoboshiError(f"{name} ascends, not {(low, high)}")
        if not self.desired_kl > 0:
            raise KoboshiError(f"agent.desired_kl must be above 0, not {self.desired_kl}")
        if self.final_kl is not None and not self.final_kl > 0:
            raise KoboshiError(f"agent.final_kl must be above 0 (or null), not {self.final_kl}")

    def aimed_kl(self, iteration: int) -> float:
        """What the adaptive rate aims at in an iteration; see `final_kl`."""
        if self.final_kl is None:
            return self.desired_kl
        share_left = 1 - iteration / self.trainer.iterations
        fall = max(0.0, self.desired_kl - self.final_kl)
        return self.desired_kl - fall * (1 - max(0.0, min(1.0, 3 * share_left)))

    @property
    def mirror_groups(self) -> tuple[str, ...]:
        return self.network.actor.groups if self.mirror_coef > 0 else ()

    def build(self, env: VecEnv, mirror: MirrorMap | None, rank: int = 0) -> PPO:
        """The learner of one policy; of several, see `PPO`."""
        from koboshi.algos.ppo.ppo import PPO

        return PPO(env, self, mirror=mirror, rank=rank)
