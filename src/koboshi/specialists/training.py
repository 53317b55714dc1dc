"""Training the whole bank in one masked batch, and giving the environments of those that are done to the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from koboshi import config
from koboshi.algos.ppo import PPO, PPOCfg, TrainerCfg
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError, at_least
from koboshi.faults import FaultsCfg, FaultSchedule, Kind
from koboshi.nets.actors import RmaCfg
from koboshi.nets.normalizer import Normalizer
from koboshi.policies.actor_critic import ActorCritic, NetworkCfg
from koboshi.specialists.assignment import Assignment, Cover, Sharing
from koboshi.specialists.charge import SeatTable, own_seats
from koboshi.specialists.env import SpecialistEnv
from koboshi.specialists.focus import Focus
from koboshi.specialists.routing import BELIEF, Router
from koboshi.vec_env import MirrorMap, ObsSpec

MakeRouter = Callable[[Assignment, int], Router]
"""Routes so many robots to an assignment's members."""


@dataclass(frozen=True)
class SpecialistsCfg:
    """How specialists are shared among joints, and how long they learn."""

    agent: PPOCfg
    """`stages` says how long, in place of its `trainer.timesteps`. Its `final_kl` is for the last stage."""
    sharing: Sharing = "mirrored_pair"
    informed: bool = False
    """Whether specialists are told which joints the router holds for broken, in which way and how much."""
    kinds: tuple[Kind, ...] | None = None
    """Kinds of fault that specialists serve, of the task's; the others are left to the healthy policy. None: all."""
    cover: Cover = "strongest"
    """Who acts where several joints fail that no specialist serves together; see `Assignment`."""
    num_envs: int = 1728
    """Environments in all, a multiple of the members; a stage of fewer members uses the largest multiple up to this."""
    stages: tuple[int, ...] = (480, 480, 480, 480, 480, 480, 2880)
    """Control steps of each stage. After one, members that fall rarely enough rest, and the others get their
    environments; in the last stage all learn again, now mostly to follow commands."""
    severity: tuple[float, ...] = (1.0,)
    """How much of `faults.severity`'s range, from its lower end on, each stage uses; stages beyond the last use its."""
    whole: float | None = None
    """Share of faults that have the greatest severity, instead of `faults.whole`; None: that."""
    dead: float | None = None
    """Share of the episodes in which all joints that break are dead, instead of `faults.dead`; None: that."""
    solved: float = 0.002
    """Falls a second below which a member rests (20 s survived with 96 %)."""
    minibatch_size: int = 6144
    """Samples of a member in a minibatch, about: with more environments each, members take more steps."""
    onset_s: tuple[float, float] = (0.8, 2.5)
    switch_delay_s: tuple[float, float] = (0.0, 0.2)
    """How late the oracle is in training, so that a late detector finds specialists that cope."""
    focus: float = 0.0
    """Share of the faults that are drawn by how often robots fall under them, the others evenly; see `Focus`."""
    detector_share: float = 0.0
    """Share of each member's environments in which a detector does the switching, its mistakes included."""
    episode_length_s: float = 10.0
    statistics_weight: float = 2e5
    """At most this many samples count for the healthy policy's normalisers, so that they can move on."""

    def validate(self) -> None:
        if not self.stages or min(self.stages) < 1:
            raise KoboshiError(f"specialists.stages must be positive numbers of steps, not {self.stages}")
        if not self.severity or not 0 <= min(self.severity) <= max(self.severity) <= 1:
            raise KoboshiError(f"specialists.severity are shares of a range, from 0 to 1, not {self.severity}")
        if len(self.severity) > len(self.stages):
            raise KoboshiError(
                f"specialists.severity has {len(self.severity)} shares, more than the {len(self.stages)} stages"
            )
        if self.agent.trainer.timesteps != TrainerCfg.timesteps:
            raise KoboshiError("specialists.agent.trainer.timesteps has no effect: set specialists.stages")
        if self.agent.mirror_coef and not (self.informed and self.sharing == "one"):
            raise KoboshiError(
                f"specialists.agent.mirror_coef={self.agent.mirror_coef} has no effect: set it to 0 (a robot with a "
                "broken joint is not its own mirror image, but for one member that serves all and is told which broke)"
            )
        at_least("specialists.minibatch_size", self.minibatch_size, 1)
        for name in ("focus", "detector_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise KoboshiError(f"specialists.{name} is from 0 to 1, not {getattr(self, name)}")
        for name in ("onset_s", "switch_delay_s"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise KoboshiError(f"specialists.{name} must ascend from at least 0 s, not {(low, high)}")


def specialist_env_cfg(
    cfg: EnvCfg, faults: FaultsCfg, assignment: Assignment, settings: SpecialistsCfg, stage: int = -1
) -> EnvCfg:
    """The task in which environment i carries a fault of member i // M, as grave as in that stage."""
    members = len(assignment.members)
    least, most = faults.severity
    share = settings.severity[min(stage % len(settings.stages), len(settings.severity) - 1)]
    severity = (least, least + share * (most - least))
    kinds = served_kinds(faults, settings)
    # A stage may leave nothing that faults could differ in.
    alike = faults.alike if len(kinds) > 1 or severity[0] < severity[1] else 0.0
    faults = replace(with_shares(faults, settings), kinds=kinds, severity=severity, alike=alike)
    if "torque_loss" not in kinds or severity[1] < 1:
        faults = replace(faults, dead=0.0)  # nothing is dead among milder faults, or others
    faults.validate()
    return replace(
        cfg,
        num_envs=settings.num_envs // members * members,
        episode_length_s=settings.episode_length_s,
        # Ages differ, or all robots are whole at the same time and updates have nothing to learn from.
        random_initial_length=True,
        faults=FaultSchedule(faults=faults, probability=1.0, onset_s=settings.onset_s, groups=assignment.groups),
    )


def with_shares(faults: FaultsCfg, settings: SpecialistsCfg) -> FaultsCfg:
    """The task's faults, as many of them whole and dead as specialists are to meet."""
    own = {name: getattr(settings, name) for name in ("whole", "dead")}
    return replace(faults, **{name: share for name, share in own.items() if share is not None})


def served_kinds(faults: FaultsCfg, settings: SpecialistsCfg) -> tuple[Kind, ...]:
    """Kinds that happen in the task and that specialists serve; KoboshiError where there is none."""
    kinds = tuple(kind for kind in faults.kinds if settings.kinds is None or kind in settings.kinds)
    if not kinds:
        raise KoboshiError(f"specialists.kinds {settings.kinds} has none of the task's: {', '.join(faults.kinds)}")
    return kinds


def check_divisible(settings: SpecialistsCfg, assignment: Assignment) -> None:
    """KoboshiError where the members cannot have as many environments each."""
    members = len(assignment.members)
    if settings.num_envs < members or settings.num_envs % members:
        near = max(settings.num_envs // members, 1) * members
        raise KoboshiError(
            f"specialists.num_envs={settings.num_envs} cannot be divided among {members} specialists; "
            f"{near} or {near + members} can"
        )


def check_network(settings: SpecialistsCfg, healthy: NetworkCfg) -> None:
    """KoboshiError where specialists, which start as copies of the healthy policy, are to have another network."""
    mine = settings.agent.network
    if settings.informed and isinstance(mine.actor, RmaCfg):
        raise KoboshiError("specialists.informed adds a group to what an actor sees, which RmaCfg lacks")
    free = replace(healthy, init_log_std=mine.init_log_std, log_std_range=mine.log_std_range)
    differ = config.diff(free, mine)
    if differ:
        raise KoboshiError(
            "specialists start as copies of the healthy policy, so specialists.agent.network is to be as "
            f"agent.network: {'; '.join(differ)}"
        )


class BankTrainer:
    """Trains stage by stage; `stage`, `active` and `falls` say where it stands."""

    def __init__(
        self,
        env_cfg: EnvCfg,
        faults: FaultsCfg,
        settings: SpecialistsCfg,
        healthy: ActorCritic,
        assignment: Assignment,
        make_router: MakeRouter,
        obs_spec: Mapping[str, ObsSpec],
        rank: int = 0,
    ) -> None:
        """`healthy` is a stack of one, which the members start from; `obs_spec` is the task's.

        Processes of one `torchrun` (`rank`) step environments of their own and average gradients and falls.
        """
        self._env_cfg, self._faults, self.settings, self._healthy = env_cfg, faults, settings, healthy
        self.assignment, self._make_router, self._rank = assignment, make_router, rank
        members = len(assignment.members)
        check_divisible(settings, assignment)
        self._bank = _copies(healthy, members, settings, obs_spec)
        self.active = list(range(members))
        self.falls = torch.full((members,), float("nan"))
        """(K,) falls a second at the end of each member's last stage."""
        self.stage = 0
        self.iteration = 0
        """Iterations over all stages."""
        self._ppo: PPO | None = None
        self._env: SpecialistEnv | None = None

    @property
    def policy(self) -> ActorCritic:
        """The bank: all members as they are now, those that rest included."""
        self._take_back()
        return self._bank

    def _take_back(self) -> None:
        """What the present stage has learnt; in every iteration these copies would make a GPU wait."""
        if self._ppo is not None:
            for place, k in enumerate(self.active):
                self._bank.set_member(k, self._ppo.policy.member(place))

    @property
    def done(self) -> bool:
        return self.stage >= len(self.settings.stages)

    @property
    def stage_iterations(self) -> int:
        """Iterations of the present stage."""
        return self._stage_agent().trainer.iterations

    def _stage_agent(self) -> PPOCfg:
        """The present stage's learner settles in the last one alone: before, those that fall have much to learn."""
        usual, stages = self.settings.agent, self.settings.stages
        seed = usual.trainer.seed + 1000 * self.stage
        trainer = replace(usual.trainer, seed=seed, timesteps=stages[self.stage])
        return replace(usual, trainer=trainer, final_kl=usual.final_kl if self.stage == len(stages) - 1 else None)

    def iterate(self) -> dict[str, float]:
        """One iteration of the present stage; at its end, sorts out who is done."""
        ppo, env = self._present_stage()
        log = ppo.iterate()
        self.iteration += 1
        log |= {"bank/stage": self.stage + 1, "bank/members": len(self.active)}
        falls = env.falls_per_s(self._env_cfg.step_dt).cpu()
        names = [self.assignment.members[k].name for k in self.active]
        log |= {f"falls_per_s/{name}": rate for name, rate in zip(names, falls.tolist(), strict=True)}
        log["bank/falls_per_s"] = float(falls.mean())
        if ppo.iteration >= self.stage_iterations:
            self._end_stage(falls)
        return log

    def _present_stage(self) -> tuple[PPO, SpecialistEnv]:
        """Its learner and its environment, made at their first use."""
        if self._ppo is None or self._env is None:
            self._env, mirror = self._make_env(self.assignment.only(self.active))
            self._ppo = self._make_learner(self._env, mirror)
        return self._ppo, self._env

    def _make_env(self, assignment: Assignment) -> tuple[SpecialistEnv, MirrorMap | None]:
        """And its mirror, where anybody uses it."""
        env = Env(specialist_env_cfg(self._env_cfg, self._faults, assignment, self.settings, self.stage))
        groups = tuple(self._bank.obs_spec)
        symmetric = bool(self.settings.agent.mirror_coef) and env.robot.mirrored
        mirror = env.mirror_map(groups) if assignment.uses_mirror or symmetric else None
        healthy, router = self._healthy.to(env.device).single(), self._make_router(assignment, env.num_envs)
        focus = self._make_focus(env, assignment) if self.settings.focus else None
        return SpecialistEnv(env, healthy, assignment, router, groups, mirror, focus), mirror if symmetric else None

    def _make_focus(self, env: Env, assignment: Assignment) -> Focus:
        table = SeatTable(assignment, env.robot).on(env.device)
        seat = table.seat_of(*(x.to(env.device) for x in own_seats(assignment, env.num_envs)))
        return Focus(env.faults, table, seat, self.settings.focus, env.step_dt)

    def _make_learner(self, env: SpecialistEnv, mirror: MirrorMap | None) -> PPO:
        agent, members = self._stage_agent(), len(self.active)
        samples = env.num_envs // members * agent.trainer.rollout
        minibatches = max(agent.minibatches, samples // self.settings.minibatch_size)
        agent = replace(agent, minibatches=minibatches, network=self._bank.cfg)
        ppo = PPO(env, agent, members=members, mirror=mirror, rank=self._rank)
        for place, k in enumerate(self.active):
            ppo.policy.set_member(place, self._bank.member(k))
        return ppo

    def _end_stage(self, falls: Tensor) -> None:
        self._take_back()
        self.falls[self.active] = falls
        self.active = [k for k in self.active if self.falls[k] > self.settings.solved]
        last = len(self.settings.stages) - 1
        self.stage = self.stage + 1 if self.active or self.stage == last else last
        if self.stage == last:
            self.active = list(range(len(self.assignment.members)))
        self._ppo = self._env = None

    def state_dict(self) -> dict[str, Tensor]:
        """Everything for an exact resume."""
        state = {f"bank.{name}": value.clone() for name, value in self.policy.state_dict().items()}
        state |= {"falls": self.falls.clone(), "active": torch.tensor(self.active, dtype=torch.int64)}
        state["counters"] = torch.tensor([self.stage, self.iteration])
        if self._ppo is not None:
            state |= {f"ppo.{name}": value for name, value in self._ppo.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resumes where `state_dict` was taken."""
        self._bank.load_state_dict({k.removeprefix("bank."): v for k, v in state.items() if k.startswith("bank.")})
        self.falls, self.active = state["falls"].clone(), state["active"].tolist()
        self.stage, self.iteration = state["counters"].tolist()
        self._ppo = self._env = None
        ppo = {k.removeprefix("ppo."): v for k, v in state.items() if k.startswith("ppo.")}
        if ppo:
            self._present_stage()[0].load_state_dict(ppo)


BELIEF_DEVIATION = 0.2
"""Of a belief's numbers in the networks' eyes: most are 0 most of the time, and their own would be tiny."""
CERTAIN = 1e12
"""A normaliser that has seen so much does not move on."""


def _network(settings: SpecialistsCfg) -> NetworkCfg:
    """Of specialists: the healthy policy's, and where they are informed, told of the belief too."""
    network = settings.agent.network
    if not settings.informed:
        return network
    actor = network.actor
    assert not isinstance(actor, RmaCfg), "see check_network"
    actor = replace(actor, groups=(*actor.groups, BELIEF))
    return replace(network, actor=actor, critic_groups=(*network.critic_groups, BELIEF))


def _copies(
    healthy: ActorCritic, members: int, settings: SpecialistsCfg, obs_spec: Mapping[str, ObsSpec]
) -> ActorCritic:
    """K copies of the healthy policy with fresh exploration, whose normalisers can move on.

    What they are told of beside has no weight yet. KoboshiError where specialists are to have another network than
    the healthy policy's.
    """
    check_network(settings, healthy.cfg)
    network = _network(settings)
    bank = ActorCritic(members, obs_spec, healthy.action_space, network)
    state = _widened(healthy, bank)
    for name, module in healthy.named_modules():
        if isinstance(module, Normalizer):
            state[f"{name}.count"].clamp_(max=settings.statistics_weight)
    if "log_std" in state:
        state["log_std"].fill_(network.init_log_std)
    for k in range(members):
        bank.set_member(k, state)
    return bank


def _widened(narrow: ActorCritic, wide: ActorCritic) -> dict[str, Tensor]:
    """The state of one member of `wide` that answers as `narrow` (a stack of one) does, whatever else it is told.

    What is new comes last among each network's inputs, where its weights are 0.
    """
    state, mine = narrow.member(0), wide.member(0)
    for name, value in mine.items():
        if name not in state:  # the normaliser of what is new
            fixed = {"mean": 0.0, "var": BELIEF_DEVIATION**2, "count": CERTAIN}
            state[name] = torch.full_like(value, fixed[name.rsplit(".", 1)[1]])
        elif value.shape != state[name].shape:
            part = "actor" if name.startswith("actor") else "critic"
            before, after = (getattr(policy, part).features for policy in (narrow, wide))
            # (1, frames · features, out): every frame has the new features.
            frames = (value.shape[1] - state[name].shape[1]) // (after - before)
            rows = state[name].unflatten(1, (frames, -1))
            state[name] = torch.nn.functional.pad(rows, (0, 0, 0, after - before)).flatten(1, 2)
    return state
