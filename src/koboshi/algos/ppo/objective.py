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

FIGURES = ("surrogate", "value", "entropy", "mirror", "kl")


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
        output, mirrored = self._outputs(batch, steps)
        distribution = policy.as_distribution(output)
        log_prob = distribution.log_prob(batch.action)
        surrogate = losses.surrogate(log_prob, batch.log_prob, batch.advantage, cfg.clip, batch.mask)
        value = policy.critic_output(batch.obs)
        value_loss = losses.value_loss(value, batch.value, batch.target, cfg.value_clip, batch.mask)
        entropy = losses.masked_mean(distribution.entropy().expand_as(value), batch.mask)
        loss = surrogate + cfg.value_coef * value_loss - cfg.entropy_coef * entropy
        symmetry = torch.zeros_like(loss)
        if self._mirror is not None:
            mask = None if batch.mask is None else self._front(batch.mask, steps)
            symmetry = losses.mirror_loss(self._front(output, steps), mirrored, *self._mirror.action, mask)
            loss = loss + cfg.mirror_coef * symmetry
        with torch.no_grad():
            kl = losses.masked_mean(_divergence(distribution, batch.old_output, old_log_std), batch.mask)
        rows = loss.new_full(loss.shape, value.shape[1]) if batch.mask is None else batch.mask.sum(1).to(loss.dtype)
        figures = torch.stack((surrogate, value_loss, entropy, symmetry, kl)).detach()
        return Gradient(self._parameters.gradient((loss * rows).sum()), figures * rows, rows)

    def auxiliary(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(K, P) the gradient of the actor's own loss, and (K,) that loss: means over the valid rows."""
        assert self._policy.actor.auxiliary_loss is not None
        loss = losses.masked_mean(self._policy.actor.auxiliary_loss(batch), batch.mask)
        return self._parameters.gradient(loss.sum()), loss.detach()

    def _outputs(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """(K, B, A) of the actor at all rows and (K, B', A) at the mirror images of the `_front`, B' = 0 without."""
        actor = self._policy.actor
        if self._mirror is None:
            output = self.output(batch.obs, batch.begins, batch.state, steps)
            return output, output[:, :0]
        # The normaliser is symmetric, so mirroring commutes with it.
        image = self._mirror.image({group: self._front(batch.obs[group], steps) for group in actor.groups})
        begins = self._front(batch.begins, steps)
        if actor.carries:
            state = map_state(lambda x: x[:, : _first_half(x.shape[1])], batch.mirrored_state)
            output = self.output(batch.obs, batch.begins, batch.state, steps)
            return output, self.output(image, begins, state, steps)
        # One pass over both: fewer and longer operations.
        both = {group: torch.cat((batch.obs[group], image[group]), dim=1) for group in actor.groups}
        output = self.output(both, torch.cat((batch.begins, begins), dim=1), batch.state, steps)
        count = batch.begins.shape[1]
        return output[:, :count], output[:, count:]

    def _front(self, x: Tensor, steps: int) -> Tensor:
        """The part of (K, B, …) rows that the mirror loss looks at: the first rows, or environments."""
        groups = steps if self._policy.actor.carries else 1
        by_time = x.unflatten(1, (groups, -1))
        return by_time[:, :, : _first_half(by_time.shape[2])].flatten(1, 2)


def _first_half(count: int) -> int:
    return -(-count // 2)


def _divergence(new: Distribution, old_output: Tensor, old_log_std: Tensor) -> Tensor:
    """(K, B) KL(old ‖ new)."""
    old = Categorical(old_output) if isinstance(new, Categorical) else Gaussian(old_output, old_log_std)
    return new.kl(old)  # type: ignore[arg-type]
