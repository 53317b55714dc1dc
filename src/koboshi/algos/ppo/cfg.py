"""The settings of PPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from koboshi.errors import KoboshiError, unknown

DEVICES = ("cpu", "cuda", "xpu", "mps")


@dataclass(frozen=True)
class NetworkCfg:
    """Actor and critic: MLPs with ELU."""

    hidden: tuple[int, ...] = (128, 128, 128)
    init_log_std: float = -0.5
    log_std_range: tuple[float, float] = (-2.5, 0.7)
    """Bounds that keep exploration alive and finite."""


@dataclass(frozen=True)
class TrainerCfg:
    """How long and how often."""

    timesteps: int = 4800
    """Steps of the whole batch; each steps every environment once (skrl's meaning)."""
    rollout: int = 24
    """Control steps between updates."""
    seed: int = 1
    checkpoint_interval: int = 20
    """Iterations between checkpoints."""
    device: str = "cpu"
    """Where learning runs: cpu, cuda, xpu or mps; physics has its own device."""

    @property
    def iterations(self) -> int:
        return -(-self.timesteps // self.rollout)

    def validate(self) -> None:
        for name in ("timesteps", "rollout", "checkpoint_interval"):
            if getattr(self, name) < 1:
                raise KoboshiError(f"agent.trainer.{name} must be at least 1, not {getattr(self, name)}")
        if self.device.partition(":")[0] not in DEVICES:
            raise unknown("learning device", self.device, DEVICES)


@dataclass(frozen=True)
class PPOCfg:
    """Schulman et al. 2017 with the usual additions; values as in FACTS: rsl_rl's defaults for humanoids."""

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
    """`adaptive`: the rate follows the KL divergence between the old and the new policy."""
    learning_rate_range: tuple[float, float] = (1e-5, 3e-3)
    desired_kl: float = 0.01
    kl_stop: float | None = None
    """A member stops its epochs once its KL exceeds this."""
    mirror_coef: float = 0.5
    """Weight of ‖π(M o) − M π(o)‖² on half of each minibatch, where the task has a mirror map."""

    def validate(self) -> None:
        for name in ("epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise KoboshiError(f"agent.{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.gamma <= 1 or not 0 <= self.lam <= 1:
            raise KoboshiError(f"agent.gamma and agent.lam are from 0 to 1, not {self.gamma}, {self.lam}")
