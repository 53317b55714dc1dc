"""PPO's objective on some rows of a rollout, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from koboshi.algos.ppo import losses
from koboshi.algos.ppo.batch import Batch
from koboshi.algos.ppo.cfg import PPOCfg
from koboshi.nets.distributions import Categorical, Distribution, Gaussian
from koboshi.nets.stack import FlatParameters
from koboshi.nets.state_tree import map_state
from koboshi.policies import ActorCritic
from koboshi.vec_env import MirrorMap, Obs, State

FIGURES = ("surrogate", "value", "entropy", "mirror", "auxiliary", "kl")


class Gradient(NamedTuple):
    """What some rows say: sums over those that are valid, or, once `joined`, means."""

    value: Tensor
    """(K, P)."""
    figures: Tensor
    """(len(FIGURES), K): the losses before their coefficients, and the divergence from the policy that acted."""
    rows: Tensor
    """(K,) how many rows are valid."""


def joined(parts: Sequence[Gradient]) -> Gradient:
    """The means over the rows of all parts. Uses up the first: of a large stack a gradient is many megabytes."""
    value, figures, rows = parts[0]
    for part in parts[1:]:
        value, figures, rows = value.add_(part.value), figures + part.figures, rows + part.rows
    count = rows.clamp(min=1)
    return Gradient(value.div_(count[:, None]), figures / count, rows)


class Objective:
    """Changes nothing, so several threads may ask at once."""

    def __init__(
        self, policy: ActorCritic, parameters: FlatParameters, cfg: PPOCfg, mirror: MirrorMap | None = None
    ) -> None:
        self._policy, self._parameters, self._cfg, self._mirror = policy, parameters, cfg, mirror

    def output(self, obs: Obs, begins: Tensor, state: State, steps: int) -> Tensor:
        """(K, B, A) of the actor, at the rows of a batch, or over the `steps` steps of its environments."""
        actor = self._policy.actor
        if not actor.carries:
            return actor(obs, state, begins)[0]
        shape = (steps, -1)
        over_time = {group: obs[group].unflatten(1, shape) for group in actor.groups}
        return actor.sequence(over_time, state, begins.unflatten(1, shape))[0].flatten(1, 2)

    def gradient(self, batch: Batch, steps: int, old_log_std: Tensor) -> Gradient:
        """The sums over the rows of a batch; `old_log_std` (K, 1, A) is that of the policy that acted."""
        policy, cfg = self._policy, self._cfg
        output = self.output(batch.obs, batch.begins, batch.state, steps)
        distribution = policy.as_distribution(output)
        log_prob = distribution.log_prob(batch.action)
        surrogate = losses.surrogate(log_prob, batch.log_prob, batch.advantage, cfg.clip, batch.mask)
        value = policy.critic_output(batch.obs)
        value_loss = losses.value_loss(value, batch.value, batch.target, cfg.value_clip, batch.mask)
        entropy = losses.masked_mean(distribution.entropy().expand_as(value), batch.mask)
        loss = surrogate + cfg.value_coef * value_loss - cfg.entropy_coef * entropy
        symmetry = auxiliary = torch.zeros_like(loss)
        if self._mirror is not None:
            symmetry = self._mirror_loss(batch, output, steps, self._mirror)
            loss = loss + cfg.mirror_coef * symmetry
        if policy.actor.auxiliary_loss is not None:
            auxiliary = policy.actor.auxiliary_loss(batch)
            loss = loss + auxiliary
        with torch.no_grad():
            kl = losses.masked_mean(_divergence(distribution, batch.old_output, old_log_std), batch.mask)
        rows = loss.new_full(loss.shape, value.shape[1]) if batch.mask is None else batch.mask.sum(1).to(loss.dtype)
        figures = torch.stack((surrogate, value_loss, entropy, symmetry, auxiliary, kl)).detach()
        return Gradient(self._parameters.gradient((loss * rows).sum()), figures * rows, rows)

    def _mirror_loss(self, batch: Batch, output: Tensor, steps: int, mirror: MirrorMap) -> Tensor:
        """(K,) on the first half of the rows, or of the environments."""
        actor = self._policy.actor
        groups = steps if actor.carries else 1
        half = (output.shape[1] // groups + 1) // 2

        def front(x: Tensor) -> Tensor:
            return x.unflatten(1, (groups, -1))[:, :, :half].flatten(1, 2)

        # The normaliser is symmetric, so mirroring commutes with it.
        image = mirror.image({group: front(batch.obs[group]) for group in actor.groups})
        state = map_state(lambda x: x[:, :half], batch.mirrored_state)
        mirrored = self.output(image, front(batch.begins), state, steps)
        mask = None if batch.mask is None else front(batch.mask)
        return losses.mirror_loss(front(output), mirrored, *mirror.action, mask)


def _divergence(new: Distribution, old_output: Tensor, old_log_std: Tensor) -> Tensor:
    """(K, B) KL(old ‖ new)."""
    old = Categorical(old_output) if isinstance(new, Categorical) else Gaussian(old_output, old_log_std)
    return new.kl(old)  # type: ignore[arg-type]
