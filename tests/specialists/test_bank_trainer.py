"""Training a bank: who rests, what members start from, and that it can be cut off anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from bodies import TINY, ears_of, heard, mirrors, told
from torch import Tensor

from koboshi.algos.ppo import MlpCfg, NetworkCfg, PPOCfg, TrainerCfg
from koboshi.config import override
from koboshi.detect import AlarmCfg, Reading
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, FaultsCfg
from koboshi.policies.actor_critic import ActorCritic
from koboshi.specialists import training
from koboshi.specialists.assignment import Assignment, assign
from koboshi.specialists.routing import DetectorRouter, OracleRouter, Router
from koboshi.specialists.training import BankTrainer, SpecialistsCfg, specialist_env_cfg
from koboshi.vec_env import ActionSpace, MirrorMap, Obs, ObsSpec, Step

J = 5
PAIRS = assign(TINY, "mirrored_pair", ("left_knee", "right_knee", "torso"))
KNEE, TORSO = range(2)
SPEC = {"policy": ObsSpec((6,)), "critic": ObsSpec((4,))}


@dataclass(frozen=True)
class WorldCfg:
    """As much of `EnvCfg` as a bank needs."""

    num_envs: int = 4
    episode_length_s: float = 20.0
    faults: Any = None
    step_dt: float = 0.02
    wobbly: tuple[str, ...] = ("torso",)
    random_initial_length: bool = False
    """Nobody's episode times out here."""


class World:
    """A robot that has to hold its broken joint's action near 1, and falls if it does not and is `wobbly`."""

    device, action_space, robot = torch.device("cpu"), ActionSpace(J), TINY
    obs_spec = SPEC | {"belief": ObsSpec((len(KINDS) * J,)), "detector": ObsSpec((J,)), "unused": ObsSpec((3,))}
    seeds: list[int] = []

    def __init__(self, cfg: WorldCfg) -> None:
        self.cfg, self.num_envs, self.step_dt = cfg, cfg.num_envs, cfg.step_dt
        groups, block = cfg.faults.groups, cfg.num_envs // len(cfg.faults.groups)
        names = [groups[i // block][i % len(groups[i // block])] for i in range(cfg.num_envs)]
        self.joint = torch.tensor([TINY.joint_id(name) for name in names])
        self.wobbly = torch.tensor([name in cfg.wobbly for name in names])
        self.age = torch.zeros(cfg.num_envs, dtype=torch.int64)
        self.generator = torch.Generator()

    def mirror_map(self, groups: tuple[str, ...]) -> MirrorMap:
        made = mirrors(TINY, {group: SPEC[group].shape[0] for group in groups if group in SPEC})
        ids, signs = torch.from_numpy(TINY.mirror_ids), torch.ones(len(KINDS) * J)
        every = {"belief": (torch.cat([J * k + ids for k in range(len(KINDS))]), signs)}
        return made._replace(obs=made.obs | {group: every[group] for group in groups if group in every})

    def _obs(self) -> Obs:
        obs = {g: torch.randn(self.num_envs, *s.shape, generator=self.generator) for g, s in self.obs_spec.items()}
        broken = torch.nn.functional.one_hot(self.joint, J) * (self.age >= 2)[:, None]
        return obs | {"belief": told(broken.float()), "detector": broken * 8.0 - 4.0}

    def reset(self, seed: int) -> Obs:
        World.seeds.append(seed)
        self.generator.manual_seed(seed)
        self.age.zero_()
        return self._obs()

    def step(self, action: Tensor) -> Step:
        self.age += 1
        error = (action.gather(1, self.joint[:, None]).squeeze(1) - 1).square()
        final = self._obs()
        terminated = self.wobbly & (self.age >= 5) & (error > 0.5)
        truncated = ~terminated & (self.age >= round(self.cfg.episode_length_s / self.step_dt))
        self.age.masked_fill_(terminated | truncated, 0)
        return Step(self._obs(), -error, terminated, truncated, final, {})

    def pop_log(self) -> dict[str, float]:
        return {"episode/from": 1.0}

    def state_dict(self) -> dict[str, Tensor]:
        return {"age": self.age.clone(), "rng": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.age.copy_(state["age"])
        self.generator.set_state(state["rng"])


class Ears:
    """A detector with a memory: it believes what it has heard for some steps."""

    tells = False
    spec = ears_of(TINY)

    def initial(self, num_envs: int) -> Tensor:
        return torch.zeros(num_envs, J)

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
        hidden = 0.5 * (hidden if reset is None else hidden.masked_fill(reset[:, None], 0.0)) + obs
        return heard(hidden), hidden


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Env", World)


def settings(**changes: Any) -> SpecialistsCfg:
    network = NetworkCfg(MlpCfg(hidden=(8,)), critic_hidden=(8,), init_log_std=-1.0)
    agent = PPOCfg(TrainerCfg(rollout=6), network, epochs=2, minibatches=1, mirror_coef=0.0)
    cfg = SpecialistsCfg(
        agent, num_envs=4, stages=(12, 12), solved=-1.0, onset_s=(0.0, 0.04), switch_delay_s=(0.0, 0.06),
        episode_length_s=0.3,
    )  # fmt: skip
    return replace(cfg, **changes)


def healthy(cfg: SpecialistsCfg, count: float = 1e6) -> ActorCritic:
    torch.manual_seed(7)
    policy = ActorCritic(1, SPEC, ActionSpace(J), cfg.agent.network)
    for name, value in policy.state_dict().items():
        if name == "log_std":
            value.fill_(-2.0)
        elif name.endswith(".count"):
            value.fill_(count)
        elif name.endswith((".mean", ".var")):
            value.copy_(torch.rand(value.shape) + 0.5)
    return policy.requires_grad_(False)


def oracle(assignment: Assignment, num_envs: int) -> Router:
    return OracleRouter(assignment, TINY, 0.02, (0.0, 0.06))


def detector(assignment: Assignment, num_envs: int) -> Router:
    alarm = AlarmCfg(threshold=0.6, persistence=2, release_threshold=0.5, release_steps=3)
    return DetectorRouter(Ears(), alarm, assignment, TINY)


def start(cfg: SpecialistsCfg, make_router=oracle, world: WorldCfg = WorldCfg(), rank: int = 0) -> BankTrainer:  # noqa: B008
    return BankTrainer(world, FaultsCfg(), cfg, healthy(cfg), PAIRS, make_router, World.obs_spec, rank)


@pytest.mark.parametrize("make_router", [oracle, detector])
def test_resume_is_exact(make_router) -> None:
    # Three stages, and the knee, which never falls, rests in the second.
    cfg = settings(stages=(12, 12, 12), solved=0.0)
    trainer, saved, valid, members = start(cfg, make_router), [], [], []
    fresh = trainer.policy.member(TORSO)
    while not trainer.done:
        log = trainer.iterate()
        valid.append(log["policy/valid"])
        members.append(log["bank/members"])
        saved.append({name: value.clone() for name, value in trainer.state_dict().items()})
    assert members == [2, 2, 1, 1, 2, 2] and trainer.iteration == 6 and trainer.stage == 3
    assert any(0 < share < 1 for share in valid), "nobody, or everybody, acted: the test says little"
    assert any(not torch.equal(fresh[n], x) for n, x in trainer.policy.member(TORSO).items()), "nothing was learnt"
    for state in saved[:-1]:
        again = start(cfg, make_router)
        again.load_state_dict(state)
        while not again.done:
            again.iterate()
        assert_same(again.state_dict(), saved[-1])


def test_a_trainer_saved_before_its_first_step() -> None:
    one, other = start(settings()), start(settings())
    other.load_state_dict(one.state_dict())
    one.iterate(), other.iterate()
    assert_same(one.state_dict(), other.state_dict())


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name].nan_to_num(7.0), b[name].nan_to_num(7.0))]
    assert not different


def test_members_that_fall_rarely_rest() -> None:
    """The torso's robots fall at once and again, the knees' never: only the torso's member trains on."""
    trainer = start(settings(stages=(24, 24, 24), solved=0.5))
    members, seen = [], []
    while not trainer.done:
        members.append(trainer.iterate()["bank/members"])
        seen.append({k: trainer.policy.member(k) for k in (KNEE, TORSO)})
        if len(members) == 4:
            assert trainer.active == [TORSO]
            assert trainer.falls[KNEE] == 0 and trainer.falls[TORSO] > 1
    assert members == [2] * 4 + [1] * 4 + [2] * 4

    def same(before: int, after: int, k: int) -> bool:
        return all(torch.equal(seen[before][k][name], seen[after][k][name]) for name in seen[before][k])

    assert same(3, 7, KNEE) and not same(3, 7, TORSO)
    assert not same(7, 8, KNEE), "in the last stage all learn again"


def test_when_all_rest_the_last_stage_begins() -> None:
    trainer = start(settings(stages=(6, 6, 6, 6), solved=0.5), world=WorldCfg(wobbly=()))
    trainer.iterate()
    assert (trainer.stage, trainer.active) == (3, [KNEE, TORSO])
    trainer.iterate()
    assert trainer.done


def test_a_member_that_never_acted_does_not_rest() -> None:
    late = settings(stages=(6, 6, 6), solved=0.5)
    trainer = start(late, lambda assignment, num_envs: OracleRouter(assignment, TINY, 0.02, 5.0), WorldCfg(wobbly=()))
    trainer.iterate()
    assert trainer.active == [KNEE, TORSO] and trainer.stage == 1


def test_a_specialist_learns_what_the_healthy_policy_cannot() -> None:
    """Within 60 iterations the action of the broken joint, on both sides of the knees, comes close to 1."""
    cfg = settings(num_envs=64, stages=(480,), episode_length_s=0.4)
    agent = replace(cfg.agent, trainer=TrainerCfg(rollout=8), epochs=4, learning_rate=3e-3, schedule="fixed")
    trainer = start(replace(cfg, agent=agent), world=WorldCfg(wobbly=()))
    errors = [-trainer.iterate()["policy/reward"] for _ in range(60)]
    assert errors[-1] < 0.5 * errors[0]
    obs = {group: torch.zeros(2, 1, *spec.shape) for group, spec in SPEC.items()}
    action, _ = trainer.policy.act(obs, (), torch.ones(2, 1, dtype=torch.bool))
    assert action[KNEE, 0, TINY.joint_id("left_knee")] == pytest.approx(1.0, abs=0.25)
    assert action[TORSO, 0, TINY.joint_id("torso")] == pytest.approx(1.0, abs=0.25)


def test_specialists_start_from_the_healthy_policy() -> None:
    cfg = settings(statistics_weight=2e3)
    policy = healthy(cfg)
    trainer = BankTrainer(WorldCfg(), FaultsCfg(), cfg, policy, PAIRS, oracle, World.obs_spec)
    for k in range(2):
        counts = 0
        for name, value in trainer.policy.member(k).items():
            if name == "log_std":
                assert (value == -1.0).all()
            elif name.endswith(".count"):
                assert (value == 2e3).all(), "statistics of a million samples would not move on"
                counts += 1
            else:
                assert torch.equal(value, policy.member(0)[name]), name
        assert counts == 3, "of both groups and of the returns"
    assert all((value == 1e6).all() for name, value in policy.state_dict().items() if name.endswith(".count"))


@pytest.mark.parametrize("coefficient", [0.0, 0.5])
def test_one_informed_member_learns_from_the_mirror(coefficient: float) -> None:
    cfg = override(settings(sharing="one", informed=True), [f"agent.mirror_coef={coefficient}"])
    every = assign(TINY, "one", ("left_knee", "right_knee"))
    trainer = BankTrainer(WorldCfg(), FaultsCfg(), cfg, healthy(cfg), every, oracle, World.obs_spec)
    logs = [trainer.iterate() for _ in range(2)]
    assert (logs[-1]["loss/mirror"] > 0) == (coefficient > 0)


def test_young_statistics_keep_their_weight() -> None:
    cfg = settings(statistics_weight=2e3)
    trainer = BankTrainer(WorldCfg(), FaultsCfg(), cfg, healthy(cfg, count=500.0), PAIRS, oracle, World.obs_spec)
    found = {name: x for name, x in trainer.policy.state_dict().items() if name.endswith(".count")}
    assert found and all((x == 500.0).all() for x in found.values())


def test_another_network_than_the_healthy_policys() -> None:
    other = NetworkCfg(MlpCfg(hidden=(9,)), critic_hidden=(8,))
    cfg = settings()
    cfg = replace(cfg, agent=replace(cfg.agent, network=other))
    with pytest.raises(KoboshiError, match="is to be as agent.network: actor.hidden"):
        BankTrainer(WorldCfg(), FaultsCfg(), cfg, healthy(settings()), PAIRS, oracle, World.obs_spec)


def test_processes_and_stages_differ_in_their_environments() -> None:
    World.seeds.clear()
    for rank in (0, 1):
        trainer = start(settings(), rank=rank)
        while not trainer.done:
            trainer.iterate()
    assert len(set(World.seeds)) == len(World.seeds) == 4


def test_a_stage_goes_on_from_where_members_were() -> None:
    """Without a step of learning they stay what they are, whichever of them the stage trains."""
    cfg = settings(stages=(6, 6, 6), solved=0.5)
    still = replace(cfg.agent, learning_rate=0.0, schedule="fixed")
    trainer = start(replace(cfg, agent=still))
    before = {k: trainer.policy.member(k) for k in (KNEE, TORSO)}
    while not trainer.done:
        trainer.iterate()
        for k, state in before.items():
            after = trainer.policy.member(k)
            assert all(torch.equal(state[n], after[n]) for n in state if n.startswith("actor") or n == "log_std")


def test_a_stages_learner_knows_how_long_it_is_and_the_last_one_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PPOCfg] = []

    class Noted(training.PPO):
        def __init__(self, env, cfg, **rest) -> None:
            made.append(cfg)
            super().__init__(env, cfg, **rest)

    monkeypatch.setattr(training, "PPO", Noted)
    cfg = settings(stages=(12, 18))
    trainer = start(replace(cfg, agent=replace(cfg.agent, final_kl=0.003)))
    while not trainer.done:
        trainer.iterate()
    assert [(cfg.trainer.iterations, cfg.final_kl) for cfg in made] == [(2, None), (3, 0.003)]


def test_members_are_copied_where_a_stage_ends_and_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = start(settings(stages=(18, 12)))
    before, copied = trainer.policy.member(0), []
    own = ActorCritic.set_member
    monkeypatch.setattr(ActorCritic, "set_member", lambda bank, *rest: (copied.append(bank), own(bank, *rest))[1])
    trainer.iterate()
    copied.clear()
    trainer.iterate()
    assert copied == []
    after = trainer.policy.member(0)
    assert len(copied) == 2 and not all(torch.equal(before[name], after[name]) for name in before)
    copied.clear()
    trainer.iterate()
    assert len(copied) == 2 and trainer.stage == 1


def test_the_environment_of_a_bank() -> None:
    faults = FaultsCfg(severity=(0.5, 0.9))
    cfg = specialist_env_cfg(WorldCfg(), faults, PAIRS, settings(num_envs=5))
    assert cfg.num_envs == 4, "a stage takes the largest multiple of its members"
    assert cfg.episode_length_s == 0.3
    schedule = cfg.faults
    assert (schedule.faults, schedule.probability, schedule.onset_s) == (faults, 1.0, (0.0, 0.04))
    assert schedule.groups == (("left_knee", "right_knee"), ("torso",))
    mixed = specialist_env_cfg(WorldCfg(), replace(faults, whole=0.5), PAIRS, settings(whole=0.8))
    assert mixed.faults.faults.whole == 0.8
    dead = specialist_env_cfg(WorldCfg(), replace(faults, severity=(0.5, 1.0), dead=0.1), PAIRS, settings(dead=0.4))
    assert dead.faults.faults.dead == 0.4
    grave, milder = replace(faults, severity=(0.5, 1.0)), settings(dead=0.4, severity=(0.5, 1.0))
    shares = [specialist_env_cfg(WorldCfg(), grave, PAIRS, milder, stage).faults.faults.dead for stage in (0, 1)]
    assert shares == [0.0, 0.4], "nothing is dead in a stage of milder faults"
    both = FaultsCfg(severity=(0.5, 0.9), count=(1, 2), alike=0.5)
    alike = [
        specialist_env_cfg(WorldCfg(), both, PAIRS, settings(severity=(0.0, 1.0)), stage).faults.faults.alike
        for stage in (0, 1)
    ]
    assert alike == [0.0, 0.5], "in the first stage all are of severity 0.5"
    with pytest.raises(KoboshiError, match="faults.whole=0.8 has no effect: all severities are 1.0"):
        specialist_env_cfg(WorldCfg(), FaultsCfg(), PAIRS, settings(whole=0.8))
    for name in ("focus", "detector_share"):
        with pytest.raises(KoboshiError, match=f"specialists.{name} is from 0 to 1, not 1.5"):
            override(settings(), [f"{name}=1.5"])
    with pytest.raises(KoboshiError, match="specialists.stages must be positive"):
        override(settings(), ["stages=[0]"])
    with pytest.raises(KoboshiError, match="agent.trainer.timesteps has no effect: set specialists.stages"):
        override(settings(), ["agent.trainer.timesteps=7"])
    with pytest.raises(KoboshiError, match="specialists.agent.mirror_coef=0.5 has no effect: set it to 0"):
        override(settings(), ["agent.mirror_coef=0.5"])


@pytest.mark.parametrize(("num_envs", "near"), [(5, "4 or 6"), (0, "2 or 4"), (1, "2 or 4")])
def test_indivisible_counts_are_refused(num_envs: int, near: str) -> None:
    message = f"specialists.num_envs={num_envs} cannot be divided among 2 specialists; {near} can"
    with pytest.raises(KoboshiError, match=message):
        start(settings(num_envs=num_envs))
