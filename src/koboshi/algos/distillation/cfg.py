"""The settings of distillation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koboshi.algos.learner import TrainerCfg
from koboshi.errors import KoboshiError, at_least
from koboshi.policies import NetworkCfg
from koboshi.policies.storage import PolicyEnv, load_single
from koboshi.vec_env import MirrorMap, Policy, VecEnv

if TYPE_CHECKING:
    from koboshi.algos.distillation.distillation import Distillation


def stored_policy(path: str, env: VecEnv) -> Policy:
    """The single policy of one of koboshi's files, checked against `env`."""
    if not isinstance(env, PolicyEnv):
        raise KoboshiError(f"{path} cannot be checked against a {type(env).__name__}; give agent.load_teacher")
    return load_single(Path(path), env)[0].single()


@dataclass(frozen=True)
class DistillationCfg:
    """DAgger (Ross et al. 2011): the student acts, the teacher says what it would have done."""

    teacher: str = ""
    """The teacher's file."""
    load_teacher: Callable[[str, VecEnv], Policy] = stored_policy
    """Makes the teacher of that file, for an environment that offers what the teacher sees."""
    trainer: TrainerCfg = TrainerCfg()
    network: NetworkCfg = NetworkCfg()
    """The student's; its critic learns nothing."""
    epochs: int = 2
    minibatches: int = 4
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0

    def validate(self) -> None:
        for name in ("epochs", "minibatches"):
            at_least(f"agent.{name}", getattr(self, name), 1)

    @property
    def mirror_groups(self) -> tuple[str, ...]:
        return ()

    def build(self, env: VecEnv, mirror: MirrorMap | None, rank: int = 0) -> Distillation:
        """The learner of one student; a teacher that is symmetric teaches symmetry, so `mirror` is not used."""
        from koboshi.algos.distillation.distillation import Distillation

        if not self.teacher:
            raise KoboshiError("agent.teacher is empty; give the file of a policy to learn from")
        return Distillation(env, self, self.load_teacher(self.teacher, env), rank=rank)
