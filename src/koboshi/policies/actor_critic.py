"""K actor-critics as one module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from koboshi.errors import unknown
from koboshi.nets.actors import AnyActorCfg, Estimator, Mlp, MlpCfg
from koboshi.nets.actors.base import LossBatch
from koboshi.nets.distributions import Categorical, Distribution, Gaussian
from koboshi.nets.normalizer import Normalizer
from koboshi.nets.stack import StackedLinear
from koboshi.nets.state_tree import map_state
from koboshi.vec_env import ActionSpace, MirrorMap, Obs, ObsSpec, State


@dataclass(frozen=True)
class NetworkCfg:
    """An actor of one of several kinds, and a critic, a multi-layer perceptron with ELU."""

    actor: AnyActorCfg = MlpCfg()
    critic_groups: tuple[str, ...] = ("critic",)
    """What the critic sees; where the environment has none of these, what the actor sees."""
    critic_hidden: tuple[int, ...] = (128, 128, 128)
    init_log_std: float = -0.5
    log_std_range: tuple[float, float] = (-2.5, 0.7)
    """Bounds that keep exploration alive and finite."""


class ActorCritic(nn.Module):
    """K policies and value functions. Inputs are raw, group -> (K, B, …): each member normalises on its own."""

    def __init__(
        self, members: int, obs_spec: Mapping[str, ObsSpec], action: ActionSpace, cfg: NetworkCfg = NetworkCfg()
    ) -> None:
        """`obs_spec`: of all groups of the environment, or at least of those that the policy names."""
        super().__init__()
        self.members, self.action_space, self.cfg = members, action, cfg
        actor, critic = cfg.actor.groups, cfg.critic_groups
        if not any(group in obs_spec for group in critic):
            critic = actor
        named = (*actor, *cfg.actor.loss_groups)
        self.actor = cfg.actor.build(members, _choose(obs_spec, named), action.dim)
        self.critic = Mlp(members, _choose(obs_spec, critic), cfg.critic_hidden, 1, last_gain=1.0)
        self.obs_spec = _choose(obs_spec, (*named, *critic))
        self.norms = nn.ModuleDict({_key(g): Normalizer(members, spec.width) for g, spec in self.obs_spec.items()})
        self.value_norm = Normalizer(members, 1, clip=None)
        self.log_std: nn.Parameter | None = None
        if not action.discrete:
            self.log_std = nn.Parameter(torch.full((members, 1, action.dim), cfg.init_log_std))

    @property
    def device(self) -> torch.device:
        return self.value_norm.mean.device

    def norm(self, group: str) -> Normalizer:
        """The normaliser of a group."""
        module = self.norms[_key(group)]
        assert isinstance(module, Normalizer)
        return module

    def normalize(self, flat: Mapping[str, Tensor]) -> Obs:
        """What the networks take: (K, B, d) of each group that is there, from what `flatten_obs` gave."""
        return {group: self.norm(group)(x) for group, x in flat.items()}

    def _seen(self, obs: Mapping[str, Tensor], groups: Iterable[str]) -> Obs:
        return self.normalize(flatten_obs({group: obs[group] for group in groups}))

    def initial_state(self, batch: int) -> State:
        """What `batch` environments a member carry before their first step; leads with (K, batch)."""
        return self.actor.initial_state(batch)

    def distribution(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Distribution, State]:
        """The policy at raw observations, reset (K, B) bool; and what to carry on."""
        output, state = self.actor(self._seen(obs, self.actor.groups), state, reset)
        return self.as_distribution(output), state

    def as_distribution(self, output: Tensor) -> Distribution:
        """What the actor's output (K, B, A) means."""
        if self.log_std is None:
            return Categorical(output)
        return Gaussian(output, self.log_std.clamp(*self.cfg.log_std_range))

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        """(K, B, A) the most likely actions, or (K, B) choices; and what to carry on."""
        distribution, state = self.distribution(obs, state, reset)
        return distribution.mode(), state

    def value(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(K, B) in the reward's unit, from raw observations."""
        output = self.critic_output(self._seen(obs, self.critic.groups))
        return self.value_norm.denormalize(output.unsqueeze(2)).squeeze(2)

    def critic_output(self, normalized: Mapping[str, Tensor]) -> Tensor:
        """(K, B) in the value normaliser's unit, from normalised observations."""
        return self.critic.network(self.critic.encode(normalized)).squeeze(2)

    @torch.no_grad()
    def estimates(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name -> (K, B, its width): what the actor guesses from raw observations, in the units of the terms."""
        assert isinstance(self.actor, Estimator)
        targets, guess = self.actor.targets, self.actor.estimates(self._seen(obs, self.actor.groups))
        norm = self.norm(targets.group)
        return targets.split(
            guess * targets.take({targets.group: norm.deviation}) + targets.take({targets.group: norm.mean})
        )

    @torch.no_grad()
    def estimate_errors(self, batch: LossBatch) -> dict[str, Tensor]:
        """Name -> () root mean square error of the actor's estimates over the rows that teach, in the units of the
        terms; nothing of an actor that estimates nothing."""
        if not isinstance(self.actor, Estimator):
            return {}
        targets, error = self.actor.targets, self.actor.estimates(batch.obs) - self.actor.truths(batch)
        error = error * targets.take({targets.group: self.norm(targets.group).deviation})
        counts = torch.ones(error.shape[:2], device=error.device) if batch.mask is None else batch.mask.to(error.dtype)
        rows = counts.sum().clamp(min=1)
        squares = {name: part.square().mean(-1) for name, part in targets.split(error).items()}
        return {name: ((square * counts).sum() / rows).sqrt() for name, square in squares.items()}

    @torch.no_grad()
    def update_statistics(self, flat: Mapping[str, Tensor], mask: Tensor | None, mirror: MirrorMap | None) -> None:
        """The normalisers take in a batch of `flat` observations; `mask` (K, B) bool says which rows count."""
        for group, x in flat.items():
            self.norm(group).update(x, mask)
            if mirror is not None and group in mirror.obs:
                self.norm(group).symmetrize(*mirror.obs[group])

    @torch.no_grad()
    def update_value_statistics(self, returns: Tensor, mask: Tensor | None) -> None:
        """Takes in returns (K, B) and rescales the critic's last layer so that its values stay what they were.

        PopArt (van Hasselt et al. 2016, eq. 6 and 7). A critic that has seen no return yet speaks no unit: its
        outputs stay as they are, and get their unit here.
        """
        norm, last = self.value_norm, self.critic.network.layers[-1]
        assert isinstance(last, StackedLinear)
        mean, deviation, seen = norm.mean.clone(), norm.deviation, norm.count > 0
        norm.update(returns.unsqueeze(2), mask)
        scale = torch.where(seen, deviation / norm.deviation, 1.0)
        shift = torch.where(seen, (mean - norm.mean) / norm.deviation, 0.0)
        last.weight.mul_(scale)
        last.bias.mul_(scale).add_(shift)

    def member(self, k: int) -> dict[str, Tensor]:
        """The state of one member as a stack of one."""
        return {name: value[k : k + 1].clone() for name, value in self.state_dict().items()}

    @torch.no_grad()
    def set_member(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Puts a stack of one at place k."""
        for name, value in self.state_dict().items():
            value[k : k + 1] = state[name]

    def blocks(self) -> BlockPolicy:
        """This stack as a `Policy` of N = K·M environments in K blocks of M."""
        return BlockPolicy(self)

    def single(self) -> BlockPolicy:
        """A stack of one as a `Policy` of N environments."""
        assert self.members == 1, f"a stack of {self.members} is not a single policy"
        return self.blocks()


class BlockPolicy:
    """A stack of K as a `Policy`: member k acts in environments k·M … (k + 1)·M − 1."""

    def __init__(self, stack: ActorCritic) -> None:
        self.stack = stack

    def initial_state(self, num_envs: int, device: torch.device) -> State:
        state = self.stack.initial_state(num_envs // self.stack.members)
        return map_state(lambda x: x.flatten(0, 1).to(device), state)

    def act(self, obs: Obs, state: State, reset: Tensor) -> tuple[Tensor, State]:
        shape = (self.stack.members, -1)
        seen = {group: obs[group].unflatten(0, shape) for group in self.stack.actor.groups}
        state = map_state(lambda x: x.unflatten(0, shape), state)
        action, state = self.stack.act(seen, state, reset.unflatten(0, shape))
        return action.flatten(0, 1), map_state(lambda x: x.flatten(0, 1), state)


def flatten_obs(obs: Mapping[str, Tensor]) -> Obs:
    """Raw group -> (K, B, …) as float (K, B, d); a picture's bytes become 0..1."""
    return {group: (x.float() / 255 if x.dtype == torch.uint8 else x).flatten(2) for group, x in obs.items()}


def _key(group: str) -> str:
    """A group's name as a module's, which may not hold a dot."""
    return group.replace(".", "/")


def _choose(obs_spec: Mapping[str, ObsSpec], groups: Iterable[str]) -> dict[str, ObsSpec]:
    """The groups named, each once, in order; KoboshiError for one that is not there."""
    for group in groups:
        if group not in obs_spec:
            raise unknown("observation group", group, obs_spec)
    return {group: obs_spec[group] for group in groups}
