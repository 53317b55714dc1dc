"""PPO over a stack of K policies; K = 1 is ordinary PPO.

The N = K·M environments lie in K blocks of M: member k acts in environments k·M … (k+1)·M − 1. Each member
has its own advantage statistics, gradient clip, learning rate, exploration noise and normalisers. A
transition that is not valid teaches nothing, and a member without valid transitions stays as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from koboshi.algos.ppo import losses
from koboshi.algos.ppo.cfg import PPOCfg
from koboshi.algos.ppo.policy import ActorCritic
from koboshi.algos.ppo.rollout import Rollout, gae
from koboshi.errors import KoboshiError
from koboshi.nets.distributed import mean_over_ranks_, share_of_ranks, sum_over_ranks
from koboshi.nets.distributions import Categorical, Distribution, Gaussian
from koboshi.nets.stack import FlatParameters, StackedAdam
from koboshi.vec_env import Obs, VecEnv


class MirrorMap(NamedTuple):
    """Mirrored = signs · x[ids], for observations of the policy and for actions."""

    obs_ids: Tensor
    obs_signs: Tensor
    action_ids: Tensor
    action_signs: Tensor


class Batch(NamedTuple):
    """A rollout made ready for learning: all lead with (K, B)."""

    policy_obs: Tensor
    critic_obs: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    value: Tensor
    target: Tensor
    mask: Tensor | None
    old_output: Tensor

    def rows(self, ids: Tensor) -> Batch:
        return Batch(*(None if x is None else x.index_select(1, ids) for x in self))  # type: ignore[arg-type]


class PPO:
    """Collects, updates, and can be stopped and gone on with exactly."""

    def __init__(
        self, env: VecEnv, cfg: PPOCfg, members: int = 1, mirror: MirrorMap | None = None, *, rank: int = 0
    ) -> None:
        """`rank` sets processes of one `torchrun` apart: the same weights, other environments and noise."""
        if env.num_envs % members:
            raise KoboshiError(f"{env.num_envs} environments cannot be divided among {members} policies")
        self.env, self.cfg, self.members = env, cfg, members
        self.device = torch.device(cfg.trainer.device)
        torch.manual_seed(cfg.trainer.seed)
        dims = env.obs_dims
        self._critic_group = "critic" if "critic" in dims else "policy"
        self.policy = ActorCritic(
            members, dims["policy"], dims[self._critic_group], env.action_space, cfg.network
        ).to(self.device)
        networks = [self.policy.actor, self.policy.critic]
        log_std = [self.policy.log_std] if self.policy.log_std is not None else []
        self.parameters = FlatParameters([*networks, *log_std])
        self.optimizer = StackedAdam(self.parameters)
        self.learning_rate = torch.full((members,), cfg.learning_rate, device=self.device)
        self.generator = torch.Generator(self.device).manual_seed(cfg.trainer.seed + 7919 * rank)
        self._mirror = MirrorMap(*(m.to(self.device) for m in mirror)) if mirror else None
        self._obs: Obs | None = None
        self._seed = cfg.trainer.seed + 104729 * rank
        self._gaussian = not env.action_space.discrete
        self._old_log_std = torch.zeros(0)
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

    @torch.no_grad()
    def collect(self) -> Rollout:
        """`rollout` steps under the sampled policy."""
        obs = self._obs if self._obs is not None else self.env.reset(self._seed)
        steps: list[tuple[Tensor, ...]] = []
        cut: list[tuple[int, Tensor, Tensor]] = []
        everything = torch.ones(self.env.num_envs, dtype=torch.bool, device=self.env.device)
        for t in range(self.cfg.trainer.rollout):
            action = (
                self.policy.distribution(self._stacked(obs["policy"])).sample(self.generator).flatten(0, 1)
            )
            step = self.env.step(action.to(self.env.device))
            ids = step.truncated.nonzero().squeeze(1)
            if len(ids):
                cut.append((t, ids, step.final_obs[self._critic_group][ids]))
            valid = step.extras.get("valid", everything)
            inputs = (obs["policy"], obs[self._critic_group], action)
            steps.append((*inputs, step.reward, step.terminated, step.truncated, valid))
            obs = step.obs
        self._obs = obs
        columns = (torch.stack(column).to(self.device) for column in zip(*steps, strict=True))
        return Rollout(*columns, last_critic_obs=obs[self._critic_group].to(self.device), cut=cut)

    def _by_member(self, x: Tensor) -> Tensor:
        """(T, N, …) -> (K, T·M, …)."""
        return x.unflatten(1, (self.members, -1)).transpose(0, 1).flatten(1, 2)

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> Batch:
        """Values, advantages and targets under the statistics that acted; then the statistics move on."""
        policy, steps = self.policy, len(rollout.reward)
        if policy.log_std is not None:
            self._old_log_std = policy.log_std.detach().clamp(*self.cfg.network.log_std_range)
        all_obs = torch.cat((rollout.critic_obs, rollout.last_critic_obs.unsqueeze(0)))
        value = policy.value(self._by_member(all_obs))
        value = value.unflatten(1, (steps + 1, -1)).transpose(0, 1).flatten(1)
        next_value = value[1:].clone()
        for t, ids, obs in rollout.cut:
            next_value[t, ids.to(self.device)] = self._values_at(ids, obs)
        value = value[:-1]
        advantage = gae(
            rollout.reward,
            value,
            next_value,
            rollout.terminated,
            rollout.truncated,
            self.cfg.gamma,
            self.cfg.lam,
        )
        # Asked of all processes together, so that all go the same way below.
        missing = sum_over_ranks((~rollout.valid).sum())
        mask = self._by_member(rollout.valid) if missing else None
        returns = self._by_member(advantage + value)
        policy_obs, critic_obs = self._by_member(rollout.policy_obs), self._by_member(rollout.critic_obs)
        normalized = policy.policy_norm(policy_obs)
        critic_normalized = policy.critic_norm(critic_obs)
        output = policy.actor(normalized)
        action = self._by_member(rollout.action)
        log_prob = policy.as_distribution(output).log_prob(action)
        policy.value_norm.update(returns.unsqueeze(2), mask)
        self._update_statistics(policy_obs, critic_obs, mask)
        old_value, target = (
            policy.value_norm(x.unsqueeze(2)).squeeze(2) for x in (self._by_member(value), returns)
        )
        advantage = losses.normalized_advantage(self._by_member(advantage), mask)
        return Batch(
            normalized, critic_normalized, action, log_prob, advantage, old_value, target, mask, output
        )

    def _values_at(self, ids: Tensor, obs: Tensor) -> Tensor:
        """(M,) each environment's own member's value."""
        per_member = self.env.num_envs // self.members
        rows = torch.zeros(self.members, len(ids), obs.shape[1], device=self.device)
        place = torch.arange(len(ids), device=self.device)
        member = ids.to(self.device) // per_member
        rows[member, place] = obs.to(self.device)
        return self.policy.value(rows)[member, place]

    def _update_statistics(self, policy_obs: Tensor, critic_obs: Tensor, mask: Tensor | None) -> None:
        self.policy.policy_norm.update(policy_obs, mask)
        self.policy.critic_norm.update(critic_obs, mask)
        if self._mirror is not None:
            self.policy.policy_norm.symmetrize(self._mirror.obs_ids, self._mirror.obs_signs)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Several epochs over one rollout. Means over members and minibatches, for the log."""
        batch = self._prepare(rollout)
        size = batch.log_prob.shape[1]
        learning = torch.ones(self.members, dtype=torch.bool, device=self.device)
        logs: list[Tensor] = []
        for _ in range(self.cfg.epochs):
            order = torch.randperm(size, generator=self.generator, device=self.device)
            for ids in order.chunk(self.cfg.minibatches):
                log, kl = self._minibatch(batch.rows(ids), learning)
                logs.append(log)
                if self.cfg.kl_stop is not None:
                    learning = learning & (kl <= self.cfg.kl_stop)
        means = torch.stack(logs).mean(0).tolist()
        names = ("loss/surrogate", "loss/value", "loss/entropy", "loss/mirror", "loss/kl", "loss/grad_norm")
        summary = dict(zip(names, means, strict=True))
        summary["policy/learning_rate"] = self.learning_rate.mean().item()
        summary["policy/valid"] = rollout.valid.float().mean().item()
        summary["policy/reward"] = rollout.reward.mean().item()
        return summary

    def _minibatch(self, batch: Batch, learning: Tensor) -> tuple[Tensor, Tensor]:
        """One gradient step; (6,) figures for the log and (K,) KL divergences."""
        policy, cfg = self.policy, self.cfg
        output, mirrored = self._actor(batch)
        distribution = policy.as_distribution(output)
        policy_loss = losses.surrogate(
            distribution.log_prob(batch.action), batch.log_prob, batch.advantage, cfg.clip, batch.mask
        )
        value = policy.critic(batch.critic_obs).squeeze(2)
        critic_loss = losses.value_loss(value, batch.value, batch.target, cfg.value_clip, batch.mask)
        entropy = losses.masked_mean(distribution.entropy().expand_as(value), batch.mask)
        loss = policy_loss + cfg.value_coef * critic_loss - cfg.entropy_coef * entropy
        symmetry = torch.zeros_like(loss)
        if mirrored is not None and self._mirror is not None:
            half = mirrored.shape[1]
            mask = None if batch.mask is None else batch.mask[:, :half]
            ids, signs = self._mirror.action_ids, self._mirror.action_signs
            symmetry = losses.mirror_loss(output[:, :half], mirrored, ids, signs, mask)
            loss = loss + cfg.mirror_coef * symmetry
        share = torch.ones_like(loss) if batch.mask is None else share_of_ranks(batch.mask.sum(1))
        self.parameters.backward((loss * share).sum())
        mean_over_ranks_(self.parameters.grad)
        kl, active = self._adapt(batch, distribution, learning, share)
        norm = self.optimizer.step(self.learning_rate, cfg.max_grad_norm, active)
        if policy.log_std is not None:
            # Outside its bounds it would have no gradient, and never come back.
            policy.log_std.data.clamp_(*cfg.network.log_std_range)
        rows = (policy_loss, critic_loss, entropy, symmetry, kl, norm)
        return torch.stack([row.detach().mean() for row in rows]), kl

    def _actor(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The actor's output, and its output for the mirror images of the first half, in one pass."""
        if self._mirror is None or self.cfg.mirror_coef == 0:
            return self.policy.actor(batch.policy_obs), None
        size = batch.policy_obs.shape[1]
        # The normaliser is symmetric, so mirroring commutes with it.
        image = batch.policy_obs[:, : (size + 1) // 2, self._mirror.obs_ids] * self._mirror.obs_signs
        output = self.policy.actor(torch.cat((batch.policy_obs, image), dim=1))
        return output[:, :size], output[:, size:]

    @torch.no_grad()
    def _adapt(
        self, batch: Batch, new: Distribution, learning: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(K,) KL divergences, which move the learning rates, and (K,) who has something to learn."""
        old = (
            Gaussian(batch.old_output, self._old_log_std) if self._gaussian else Categorical(batch.old_output)
        )
        kl = mean_over_ranks_(losses.masked_mean(new.kl(old), batch.mask) * share)  # type: ignore[arg-type]
        active = learning
        if batch.mask is not None:
            active = learning & (sum_over_ranks(batch.mask.sum(1)) > 0)
        if self.cfg.schedule == "adaptive":
            low, high = self.cfg.learning_rate_range
            factor = torch.where(kl > 2 * self.cfg.desired_kl, 1 / 1.5, 1.0)
            factor = torch.where(kl < self.cfg.desired_kl / 2, 1.5, factor)
            self.learning_rate = torch.where(
                active, (self.learning_rate * factor).clamp(low, high), self.learning_rate
            )
        if self.cfg.kl_stop is not None:
            active = active & (kl <= self.cfg.kl_stop)
        return kl, active

    def state_dict(self) -> dict[str, Tensor]:
        """Everything for an exact resume, the environment included."""
        state = {"learning_rate": self.learning_rate.clone(), "iteration": torch.tensor(self.iteration)}
        state["rng"] = self.generator.get_state()
        for prefix, part in (("policy", self.policy), ("optimizer", self.optimizer), ("env", self.env)):
            state |= {f"{prefix}.{name}": value.detach().clone() for name, value in part.state_dict().items()}
        return state | {f"obs.{group}": value.clone() for group, value in (self._obs or {}).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state_dict` was taken."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        self.learning_rate.copy_(state["learning_rate"])
        self.iteration = int(state["iteration"])
        self.generator.set_state(state["rng"].cpu())
        self.policy.load_state_dict(under("policy."))
        self.optimizer.load_state_dict(under("optimizer."))
        self.env.load_state_dict(under("env."))
        self._obs = {k: v.to(self.env.device) for k, v in under("obs.").items()} or None
