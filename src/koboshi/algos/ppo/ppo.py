"""PPO over a stack of K policies; K = 1 is ordinary PPO.

The N = K·M environments lie in K blocks of M: member k acts in environments k·M … (k+1)·M − 1. Each member
has its own advantage statistics, gradient clip, learning rate, exploration noise and normalisers. A
transition that is not valid teaches nothing, and a member without valid transitions stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from koboshi import vec_env
from koboshi.algos.learner import Carried, load_learner, save_learner, seed_of
from koboshi.algos.ppo import losses
from koboshi.algos.ppo.batch import Batch
from koboshi.algos.ppo.cfg import PPOCfg
from koboshi.algos.ppo.objective import FIGURES, Gradient, Objective, joined
from koboshi.algos.ppo.rollout import Rollout, gae
from koboshi.devices import local_device
from koboshi.errors import KoboshiError
from koboshi.nets.distributed import mean_over_ranks_, share_of_ranks, sum_over_ranks
from koboshi.nets.parts import count_of_parts, in_parts
from koboshi.nets.stack import FlatParameters, StackedAdam
from koboshi.policies import ActorCritic, flatten_obs
from koboshi.vec_env import MirrorMap, Obs, State, Step, VecEnv

LOSSES = (*FIGURES, "grad_norm", "auxiliary")
OWN_GRAD_NORM = 10.0
"""Clip of what an actor's own loss teaches, as HIM's authors set it."""
LOGGED = (*(f"loss/{name}" for name in LOSSES), "policy/learning_rate", "policy/valid", "policy/reward")


class PPO:
    """Collects, updates, and can be stopped and resumed exactly (a `Learner`)."""

    def __init__(
        self, env: VecEnv, cfg: PPOCfg, members: int = 1, mirror: MirrorMap | None = None, *, rank: int = 0
    ) -> None:
        """`rank` sets processes of one `torchrun` apart: the same weights, other environments and noise."""
        if env.num_envs % members:
            raise KoboshiError(f"{env.num_envs} environments cannot be divided among {members} policies")
        self.env, self.cfg, self.members = env, cfg, members
        self.device = local_device(cfg.trainer.device)
        torch.manual_seed(cfg.trainer.seed)
        self.policy = ActorCritic(members, env.obs_spec, env.action_space, cfg.network).to(self.device)
        self._actor = self.policy.actor
        log_std = [self.policy.log_std] if self.policy.log_std is not None else []
        self.parameters = FlatParameters([self._actor, self.policy.critic, *log_std], last=self._actor.apart)
        split = self.parameters.split
        self.optimizer = StackedAdam(self.parameters.value[:, :split])
        self._own_optimizer = StackedAdam(self.parameters.value[:, split:]) if self._actor.apart else None
        self.learning_rate = torch.full((members,), cfg.learning_rate, device=self.device)
        self._seed, noise = seed_of(cfg.trainer, rank)
        self.generator = torch.Generator(self.device).manual_seed(noise)
        self._actor.generator = self.generator
        self._mirror = mirror.to(self.device) if mirror is not None and cfg.mirror_coef else None
        self._objective = Objective(self.policy, self.parameters, cfg, self._mirror)
        self._room: Rollout | None = None
        self._carried: Carried | None = None
        self._old_log_std = torch.zeros(0)
        self._errors: dict[str, Tensor] = {}
        self.iteration = 0

    def iterate(self) -> dict[str, float]:
        """One rollout and one update; gives what there is to log."""
        rollout = self.collect()
        log = self.update(rollout)
        self.iteration += 1
        return log | self.env.pop_log()

    def _stacked(self, x: Tensor) -> Tensor:
        """(N, …) -> (K, M, …) on the learning device."""
        return x.to(self.device).unflatten(0, (self.members, -1))

    def _copied(self, obs: Obs) -> Obs:
        """Copies of the groups that the policy names, on the learning device."""
        return {group: obs[group].to(self.device, copy=True) for group in self.policy.obs_spec}

    def _initial_states(self) -> dict[str, State]:
        per_member = self.env.num_envs // self.members
        return {name: self.policy.initial_state(per_member) for name in ("actor", "mirrored")}

    def _begin(self) -> Carried:
        reset = torch.ones(self.env.num_envs, dtype=torch.bool, device=self.device)
        return Carried(self._copied(self.env.reset(self._seed)), reset, self._initial_states())

    def _empty(self) -> Rollout:
        policy, actor = self.policy, self._actor
        sizes = (self.cfg.trainer.rollout, self.env.num_envs)
        return Rollout.empty(*sizes, policy.obs_spec, policy.action_space, self.device, actor.next_groups)

    @torch.no_grad()
    def collect(self) -> Rollout:
        """`rollout` steps under the sampled policy. Nothing is read back from a device that is not the CPU."""
        obs, reset, states = self._carried or self._begin()
        state, mirrored = states["actor"], states["mirrored"]
        self._room = self._room or self._empty()
        rollout = self._room
        rollout.first, rollout.state, rollout.mirrored_state = reset, state, mirrored
        for t in range(len(rollout.reward)):
            for group, rows in rollout.obs.items():
                rows[t].copy_(obs[group])
            seen = {group: self._stacked(rollout.obs[group][t]) for group in self._actor.groups}
            begins = self._stacked(reset)
            if self._mirror is not None and self._actor.carries:
                image = self._mirror.image(self.policy.normalize(flatten_obs(seen)))
                mirrored = self._actor(image, mirrored, begins)[1]
            distribution, state = self.policy.distribution(seen, state, begins)
            action = distribution.sample(self.generator).flatten(0, 1)
            rollout.action[t].copy_(action)
            step = self.env.step(action.to(self.env.device))
            self._record(rollout, t, step)
            obs, reset = step.obs, rollout.ends(t)
        self._carried = Carried(self._copied(obs), reset, {"actor": state, "mirrored": mirrored})
        rollout.last_obs = self._carried.obs
        return rollout

    def _record(self, rollout: Rollout, t: int, step: Step) -> None:
        rollout.reward[t].copy_(step.reward)
        rollout.terminated[t].copy_(step.terminated)
        rollout.truncated[t].copy_(step.truncated)
        for rows, name, usual in ((rollout.valid, "valid", True), (rollout.anew, "anew", False)):
            if name in step.extras:
                rows[t].copy_(step.extras[name])
            else:
                rows[t].fill_(usual)
        for group, rows in (rollout.next_obs or {}).items():
            rows[t].copy_(step.final_obs[group])
        if vec_env.anyone(step.truncated):
            rollout.final_value[t].copy_(self._final_value(step))

    def _final_value(self, step: Step) -> Tensor:
        """(N,) each environment's own member's value of its true last observation, at least where time ran out."""
        obs = {group: self._stacked(step.final_obs[group]) for group in self.policy.critic.groups}
        if not vec_env.reading_is_free(step.truncated):
            return self.policy.value(obs).flatten()
        # A few rows of each member, as many as the one with most of them needs: the others are not computed.
        cut = self._stacked(step.truncated)
        order = cut.int().argsort(dim=1, descending=True, stable=True)[:, : int(cut.sum(1).max())]
        member = torch.arange(self.members, device=self.device)[:, None]
        value = torch.zeros(cut.shape, device=self.device)
        value[member, order] = self.policy.value({group: x[member, order] for group, x in obs.items()})
        return value.flatten()

    def _by_member(self, x: Tensor) -> Tensor:
        """(T, N, …) -> (K, T·M, …)."""
        return x.unflatten(1, (self.members, -1)).transpose(0, 1).flatten(1, 2)

    def _by_time(self, x: Tensor, steps: int) -> Tensor:
        """(K, T·M) -> (T, N)."""
        return x.unflatten(1, (steps, -1)).transpose(0, 1).flatten(1)

    def _flat(self, obs: Obs) -> Obs:
        """Group -> (T, N, …) as group -> (K, T·M, d), raw."""
        return flatten_obs({group: self._by_member(x) for group, x in obs.items()})

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> Batch:
        """Values, advantages and targets under the statistics that acted; then the statistics move on."""
        policy, steps = self.policy, len(rollout.reward)
        if policy.log_std is not None:
            self._old_log_std = policy.log_std.detach().clamp(*self.cfg.network.log_std_range)
        flat, next_flat = self._flat(rollout.obs), self._flat(rollout.next_obs or {})
        obs, next_obs = policy.normalize(flat), policy.normalize(next_flat)
        begins = self._by_member(rollout.begins)
        output = self._objective.output(obs, begins, rollout.state, steps)
        critic_output = policy.critic_output(obs)
        value = policy.value_norm.denormalize(critic_output.unsqueeze(2)).squeeze(2)
        advantage = self._advantage(rollout, self._by_time(value, steps))
        # Asked of all processes together, so that all go the same way below.
        missing = sum_over_ranks((~rollout.valid).sum())
        mask = self._by_member(rollout.valid) if missing else None
        advantage = self._by_member(advantage)
        returns = advantage + value
        seen = policy.value_norm.count[:, 0] > 0
        policy.update_value_statistics(returns, mask)
        old_value, target = (policy.value_norm(x.unsqueeze(2)).squeeze(2) for x in (value, returns))
        action = self._by_member(rollout.action)
        batch = Batch(
            obs,
            next_obs,
            action,
            policy.as_distribution(output).log_prob(action),
            losses.normalized_advantage(advantage, mask),
            # The first statistics give a critic that had no unit one; its outputs stay as they were.
            torch.where(seen, old_value, critic_output),
            target,
            mask,
            output,
            begins,
            rollout.state,
            rollout.mirrored_state,
        )
        self._errors = policy.estimate_errors(batch)  # in the units of the statistics that normalised the batch
        policy.update_statistics(flat, mask, self._mirror)
        return batch

    def _advantage(self, rollout: Rollout, value: Tensor) -> Tensor:
        """(T, N)."""
        last = self.policy.value({g: self._stacked(rollout.last_obs[g]) for g in self.policy.critic.groups})
        next_value = torch.cat((value[1:], last.view(1, -1)))
        next_value = torch.where(rollout.truncated, rollout.final_value, next_value)
        ends = (rollout.terminated, rollout.truncated)
        return gae(rollout.reward, value, next_value, *ends, rollout.valid, self.cfg.gamma, self.cfg.lam)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Several epochs over one rollout. Means over members and minibatches, for the log."""
        batch, steps = self._prepare(rollout), len(rollout.reward)
        errors = self._errors
        learning = torch.ones(self.members, dtype=torch.bool, device=self.device)
        logs: list[Tensor] = []
        for ids in self._minibatches(batch, steps):
            log, kl = self._learn(batch, ids, steps, learning, first=not logs)
            logs.append(log)
            if self.cfg.kl_stop is not None:
                learning = learning & (kl <= self.cfg.kl_stop)
        about = (self.learning_rate.mean(), rollout.valid.float().mean(), rollout.reward.mean(), *errors.values())
        numbers = torch.cat((torch.stack(logs).mean(0), torch.stack(about))).cpu().tolist()
        return dict(zip((*LOGGED, *(f"estimate/{name}" for name in errors)), numbers, strict=True))

    def _minibatches(self, batch: Batch, steps: int) -> Iterator[Tensor]:
        """Which transitions, in random order; of an actor that carries something, which environments."""
        size = batch.log_prob.shape[1] // (steps if self._actor.carries else 1)
        for _ in range(self.cfg.epochs):
            order = torch.randperm(size, generator=self.generator, device=self.device)
            yield from order.chunk(self.cfg.minibatches)

    def _learn(self, batch: Batch, ids: Tensor, steps: int, learning: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        """One gradient step on a minibatch; figures for the log (as `LOSSES`) and (K,) KL divergences."""
        found = self._gradient(batch, ids, steps)
        masked = batch.mask is not None
        grad, kl = found.value, found.figures[-1]
        auxiliary = torch.zeros_like(kl)
        if self._actor.auxiliary_loss is not None:
            # It may compare rows or draw noise, so it sees the minibatch as a whole.
            of_auxiliary, auxiliary = self._objective.auxiliary(self._rows(batch, ids, steps))
            grad = grad.add_(of_auxiliary)
        if masked:
            share = share_of_ranks(found.rows)
            grad, kl = grad.mul_(share[:, None]), kl * share
        grad, kl = mean_over_ranks_(grad), mean_over_ranks_(kl)
        taught = sum_over_ranks(found.rows) > 0 if masked else torch.ones_like(learning)
        active = self._adapt(kl, learning & taught, first)
        split = self.parameters.split
        norm = self.optimizer.step(grad[:, :split], self.learning_rate, self.cfg.max_grad_norm, active)
        if self._own_optimizer is not None:
            rate = torch.full_like(self.learning_rate, self._actor.own_rate)
            self._own_optimizer.step(grad[:, split:], rate, OWN_GRAD_NORM, taught)
        if self.policy.log_std is not None:
            # Outside its bounds it would have no gradient, and never come back.
            self.policy.log_std.data.clamp_(*self.cfg.network.log_std_range)
        return torch.cat((found.figures[:-1], kl[None], norm[None], auxiliary[None])).mean(1), kl

    def _rows(self, batch: Batch, ids: Tensor, steps: int) -> Batch:
        """A minibatch: some transitions, or of an actor that carries something some environments."""
        return batch.environments(ids, steps) if self._actor.carries else batch.rows(ids)

    def _gradient(self, batch: Batch, ids: Tensor, steps: int) -> Gradient:
        """Of a minibatch, whose parts several threads work on."""
        rows = len(ids) * self.members * (steps if self._actor.carries else 1)

        def work(part: Tensor) -> Gradient:
            return self._objective.gradient(self._rows(batch, part, steps), steps, self._old_log_std)

        return joined(in_parts(work, ids.chunk(count_of_parts(self.device, rows))))

    def _adapt(self, kl: Tensor, active: Tensor, first: bool) -> Tensor:
        """Moves the learning rates by the divergences (K,); (K,) who of those `active` takes a step."""
        # Before its first step a policy is its old self, whatever rounding makes of that: no sign of a small rate.
        if self.cfg.schedule == "adaptive" and not first:
            low, high = self.cfg.learning_rate_range
            aim = self.cfg.aimed_kl(self.iteration)
            factor = torch.where(kl > 2 * aim, 1 / 1.5, 1.0)
            factor = torch.where((kl < aim / 2) & (kl > 0), 1.5, factor)
            rate = (self.learning_rate * factor).clamp(low, high)
            self.learning_rate = torch.where(active, rate, self.learning_rate)
        return active if self.cfg.kl_stop is None else active & (kl <= self.cfg.kl_stop)

    def _parts(self) -> dict[str, object]:
        own = {} if self._own_optimizer is None else {"own_optimizer": self._own_optimizer}
        return {"policy": self.policy, "optimizer": self.optimizer, "env": self.env, **own}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything for an exact resume, the environment included."""
        state = save_learner(self.iteration, self.generator, self._carried, **self._parts())
        return state | {"learning_rate": self.learning_rate.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resumes where `state_dict` was taken."""
        self.learning_rate = state["learning_rate"].to(self.device, copy=True)
        found = load_learner(state, self.generator, self._initial_states(), self.device, **self._parts())
        self.iteration, self._carried = found
