"""EST: a state estimator learnt beside the policy (Ji et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from koboshi.nets.actors.base import LossBatch
from koboshi.nets.actors.estimator import Estimator, EstimatorCfg, Truth
from koboshi.nets.stack import Part, StackedMLP
from koboshi.vec_env import ObsSpec


class Est(Estimator):
    """Guesses quantities that no sensor shows, by squared error, and acts on them too."""

    def __init__(
        self,
        members: int,
        specs: Mapping[str, ObsSpec],
        targets: Truth,
        encoder_hidden: Sequence[int],
        hidden: Sequence[int],
        outputs: int,
    ) -> None:
        super().__init__(members, specs, targets, 0, hidden, outputs)
        self.estimator = StackedMLP(members, self.features, encoder_hidden, targets.width)

    @property
    def apart(self) -> tuple[Part, ...]:
        return (self.estimator,)

    def estimates(self, obs: Mapping[str, Tensor]) -> Tensor:
        return self.estimator(self.encode(obs))

    insight = estimates

    def auxiliary_loss(self, batch: LossBatch) -> Tensor:
        return (self.estimates(batch.obs) - self.truths(batch)).square().mean(-1)


@dataclass(frozen=True)
class EstCfg(EstimatorCfg):
    """A multi-layer perceptron on the present step and on estimates from the whole history (Ji et al. 2022)."""

    targets: tuple[str, ...] = ("base_lin_vel", "foot_height", "foot_contact")
    """Terms that are guessed; a contact, which is 0 or 1, becomes its probability."""
    encoder_hidden: tuple[int, ...] = (256, 128)

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Est:
        targets = self.truths(specs, self.targets)
        return Est(members, self.acts_on(specs), targets, self.encoder_hidden, self.hidden, outputs)
