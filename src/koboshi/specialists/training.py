"""Training the whole bank in one masked batch, and giving the environments of those that are done to the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from koboshi.algos.ppo import PPO, ActorCritic, PPOCfg
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events
from koboshi.errors import KoboshiError
from koboshi.faults import FaultSchedule
from koboshi.specialists.assignment import Assignment, Sharing
from koboshi.specialists.env import SpecialistEnv
from koboshi.specialists.routing import Router


@dataclass(frozen=True)
class SpecialistsCfg:
    """How specialists are shared among joints, and how long they learn."""

    agent: PPOCfg
    sharing: Sharing = "mirrored_pair"
    num_envs: int = 1728
    """Environments in all; each stage uses the largest multiple of its members below this."""
    stages: tuple[int, ...] = (480, 480, 480, 480, 480, 480, 2880)
    """Control steps of each stage. After one, members that fall rarely enough rest, and the others get their
    environments; in the last stage all learn again, now mostly to follow commands."""
    solved: float = 0.002
    """Falls a second below which a member rests (20 s survived with 96 %)."""
    minibatch_size: int = 6144
    """Samples of a member in a minibatch, about: with more environments each, members take more steps."""
    onset_s: tuple[float, float] = (0.8, 2.5)
    switch_delay_s: tuple[float, float] = (0.0, 0.2)
    """How late the oracle is in training, so that a late detector finds specialists that cope."""
    episode_length_s: float = 10.0
    statistics_weight: float = 2e5
    """At most this many samples count for the healthy policy's normalisers, so that they can move on."""

    def validate(self) -> None:
        if not self.stages or min(self.stages) < 1:
            raise KoboshiError(f"specialists.stages must be positive numbers of steps, not {self.stages}")
        if self.minibatch_size < 1:
            raise KoboshiError(f"specialists.minibatch_size must be at least 1, not {self.minibatch_size}")
        for name in ("onset_s", "switch_delay_s"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise KoboshiError(f"specialists.{name} must ascend from at least 0 s, not {(low, high)}")


def specialist_env_cfg(cfg: EnvCfg, assignment: Assignment, settings: SpecialistsCfg) -> EnvCfg:
    """The task in which environment i carries a fault of member i // M."""
    schedule = FaultSchedule(groups=assignment.groups, onset_s=settings.onset_s)
    fault = EventTerm(events.change_joint_torque, params={"schedule": schedule})
    members = len(assignment.members)
    return replace(
        cfg,
        num_envs=settings.num_envs // members * members,
        episode_length_s=settings.episode_length_s,
        events=cfg.events | {"change_joint_torque": fault},
    )


def check_divisible(settings: SpecialistsCfg, assignment: Assignment) -> None:
    """KoboshiError where the members cannot have as many environments each."""
    members = len(assignment.members)
    if settings.num_envs < members or settings.num_envs % members:
        near = max(settings.num_envs // members, 1) * members
        raise KoboshiError(
            f"specialists.num_envs={settings.num_envs} cannot be divided among {members} specialists; "
            f"{near} or {near + members} can"
        )


class BankTrainer:
    """Trains stage by stage; `stage`, `active` and `falls` say where it stands."""

    def __init__(
        self,
        env_cfg: EnvCfg,
        settings: SpecialistsCfg,
        healthy: ActorCritic,
        assignment: Assignment,
        make_router: Callable[[], Router],
    ) -> None:
        self._env_cfg, self.settings, self._healthy = env_cfg, settings, healthy
        self.assignment, self._make_router = assignment, make_router
        members = len(assignment.members)
        check_divisible(settings, assignment)
        self.bank = _copies(healthy, members, settings)
        self.active = list(range(members))
        self.falls = torch.full((members,), float("nan"))
        self.stage = 0
        self.iteration = 0
        """Iterations over all stages."""
        self._ppo: PPO | None = None
        self._env: SpecialistEnv | None = None

    @property
    def done(self) -> bool:
        return self.stage >= len(self.settings.stages)

    @property
    def stage_iterations(self) -> int:
        """Iterations of the present stage."""
        return -(-self.settings.stages[self.stage] // self.settings.agent.trainer.rollout)

    @property
    def ppo(self) -> PPO:
        """The present stage's learner, made at its first use."""
        if self._ppo is None:
            self._ppo = self._start_stage()
        return self._ppo

    def _start_stage(self) -> PPO:
        assignment = self.assignment.only(self.active)
        env = Env(specialist_env_cfg(self._env_cfg, assignment, self.settings))
        mirrors = {name: env.mirror(name) for name in ("policy", "critic", "action")}
        self._env = SpecialistEnv(env, env.robot, self._healthy, assignment, self._make_router(), mirrors)
        agent = self.settings.agent
        trainer = replace(agent.trainer, seed=agent.trainer.seed + 1000 * self.stage)
        samples = env.num_envs // len(self.active) * trainer.rollout
        minibatches = max(agent.minibatches, samples // self.settings.minibatch_size)
        agent = replace(agent, trainer=trainer, minibatches=minibatches)
        ppo = PPO(self._env, agent, members=len(self.active))
        for place, k in enumerate(self.active):
            ppo.policy.set_member(place, self.bank.member(k))
        return ppo

    def iterate(self) -> dict[str, float]:
        """One iteration of the present stage; at its end, sorts out who is done."""
        ppo = self.ppo
        log = ppo.iterate()
        self.iteration += 1
        log |= {"bank/stage": self.stage + 1, "bank/members": len(self.active)}
        assert self._env is not None
        falls = self._env.falls_per_s(len(self.active), self._env_cfg.step_dt)
        names = [self.assignment.members[k].name for k in self.active]
        log |= {f"falls_per_s/{name}": float(rate) for name, rate in zip(names, falls, strict=True)}
        log["bank/falls_per_s"] = float(falls.mean())
        if ppo.iteration >= self.stage_iterations:
            self._end_stage()
        return log

    def _end_stage(self) -> None:
        assert self._env is not None and self._ppo is not None
        falls = self._env.falls_per_s(len(self.active), self._env_cfg.step_dt)
        for place, k in enumerate(self.active):
            self.bank.set_member(k, self._ppo.policy.member(place))
            self.falls[k] = falls[place]
        self.active = [k for k in self.active if self.falls[k] > self.settings.solved]
        last = len(self.settings.stages) - 1
        self.stage = self.stage + 1 if self.active or self.stage == last else last
        if self.stage == last:
            self.active = list(range(len(self.assignment.members)))
        self._ppo = self._env = None

    def state_dict(self) -> dict[str, Tensor]:
        """Everything for an exact resume."""
        state = {f"bank.{name}": value.clone() for name, value in self.bank.state_dict().items()}
        state |= {"falls": self.falls.clone(), "active": torch.tensor(self.active, dtype=torch.int64)}
        state["counters"] = torch.tensor([self.stage, self.iteration])
        if self._ppo is not None:
            state |= {f"ppo.{name}": value for name, value in self._ppo.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state_dict` was taken."""
        self.bank.load_state_dict({k.removeprefix("bank."): v for k, v in state.items() if k.startswith("bank.")})
        self.falls, self.active = state["falls"].clone(), state["active"].tolist()
        self.stage, self.iteration = state["counters"].tolist()
        ppo = {k.removeprefix("ppo."): v for k, v in state.items() if k.startswith("ppo.")}
        if ppo:
            self._ppo = self._start_stage()
            self._ppo.load_state_dict(ppo)


def _copies(healthy: ActorCritic, members: int, settings: SpecialistsCfg) -> ActorCritic:
    """K copies of the healthy policy with fresh exploration."""
    bank = ActorCritic(
        members,
        healthy.policy_norm.mean.shape[2],
        healthy.critic_norm.mean.shape[2],
        healthy.action_space,
        settings.agent.network,
    )
    state = healthy.member(0)
    for name in [n for n in state if n.endswith("_norm.count")]:
        state[name] = state[name].clamp(max=settings.statistics_weight)
    if healthy.log_std is not None:
        state["log_std"] = torch.full_like(state["log_std"], settings.agent.network.init_log_std)
    for k in range(members):
        bank.set_member(k, state)
    return bank
