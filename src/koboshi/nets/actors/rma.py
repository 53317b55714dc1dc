"""RMA: a teacher told the truth, and a student that guesses what the teacher makes of it (Kumar et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.nets.actors.base import Actor, ActorCfg, LossBatch
from koboshi.nets.actors.estimator import Present, check_history
from koboshi.nets.stack import Part, StackedMLP
from koboshi.vec_env import ObsSpec, State

Source = Literal["truth", "history"]


class Rma(Actor):
    """One trunk on the present step and on a latent: the teacher's, from the truth, or the student's, from history.

    The student learns the teacher's latent by squared error whoever of them acts. Where it acts itself, that is
    RMA's second phase; the teacher's encoder learns no more then.
    """

    def __init__(
        self,
        members: int,
        senses: Mapping[str, ObsSpec],
        truth: tuple[str, ObsSpec],
        acts_on: Source,
        latent: int,
        teacher_hidden: Sequence[int],
        student_hidden: Sequence[int],
        hidden: Sequence[int],
        outputs: int,
    ) -> None:
        self._senses, self._truth, self._of_teacher = tuple(senses), truth[0], acts_on == "truth"
        super().__init__(members, {**senses, truth[0]: truth[1]} if self._of_teacher else senses)
        check_history(senses)
        self._now = Present(senses)
        seen = sum(spec.width for spec in senses.values())
        self.teacher = StackedMLP(members, truth[1].width, teacher_hidden, latent)
        self.student = StackedMLP(members, seen, student_hidden, latent)
        self.trunk = StackedMLP(members, self._now.width + latent, hidden, outputs, last_gain=0.01)

    @property
    def apart(self) -> tuple[Part, ...]:
        return (self.student,)

    def _guess(self, obs: Mapping[str, Tensor]) -> Tensor:
        parts = [obs[group] for group in self._senses]
        return self.student(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))

    def forward(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        if self._of_teacher:
            latent = self.teacher(obs[self._truth])
        else:
            with torch.no_grad():
                latent = self._guess(obs)
        return self.trunk(torch.cat((latent, self._now(obs)), dim=-1)), ()

    def auxiliary_loss(self, batch: LossBatch) -> Tensor:
        with torch.no_grad():
            latent = self.teacher(batch.obs[self._truth])
        return (self._guess(batch.obs) - latent).square().mean(-1)


@dataclass(frozen=True)
class RmaCfg(ActorCfg):
    """A multi-layer perceptron on the present step and on a latent of what no sensor shows (Kumar et al. 2021).

    Train the teacher (`acts_on=truth`), then begin with its weights (`--load`) and `acts_on=history`: PPO goes on with
    the trunk (A-RMA, Kumar et al. 2022), or, with `agent.schedule=fixed agent.learning_rate=0`, the student alone
    learns (RMA).
    """

    senses: tuple[str, ...] = ("policy",)
    """Groups that both see; the student also all of their history."""
    truth: str = "critic"
    """The group that the teacher sees besides."""
    acts_on: Source = "truth"
    """`truth`: the teacher acts; `history`: the student, which needs nothing else."""
    latent: int = 8
    teacher_hidden: tuple[int, ...] = (256, 128)
    student_hidden: tuple[int, ...] = (256, 128)
    hidden: tuple[int, ...] = (128, 128, 128)

    def validate(self) -> None:
        if self.truth in self.senses:
            raise KoboshiError(f"actor.truth is what senses lack, and senses name '{self.truth}' too")

    @property
    def groups(self) -> tuple[str, ...]:
        return (*self.senses, self.truth) if self.acts_on == "truth" else self.senses

    @property
    def loss_groups(self) -> tuple[str, ...]:
        return (self.truth,)

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Rma:
        senses = {group: specs[group] for group in self.senses}
        truth = (self.truth, specs[self.truth])
        sizes = (self.latent, self.teacher_hidden, self.student_hidden, self.hidden, outputs)
        return Rma(members, senses, truth, self.acts_on, *sizes)
