"""What the benchmark compares with: single policies that learn under random faults, and banks shared otherwise.

Every rival may take as many environment steps as the whole pipeline: the healthy policy's, all specialists' together
and those of the detector's data. It gets the senses that the pipeline's detector has (group `detector`: the policy's
own and the joints' torques). Networks are as wide as the healthy policy's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from koboshi import config, runs
from koboshi.algos.distillation import DistillationCfg
from koboshi.algos.learner import TrainerCfg
from koboshi.algos.ppo import PPOCfg
from koboshi.detect import save_detector
from koboshi.errors import KoboshiError
from koboshi.faults import FaultSchedule
from koboshi.nets.actors import AnyActorCfg, GruCfg, MlpCfg
from koboshi.policies.storage import save_policy
from koboshi.specialists.assignment import Sharing
from koboshi.specialists.storage import load_healthy
from koboshi.specialists.training import SpecialistsCfg, with_shares
from koboshi.stages import healthy, specialists
from koboshi.stages.evaluate import load
from koboshi.stages.folders import Start
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import required

SENSES = "detector"
TRUTHS = ("belief", "fault")
"""Observation groups that tell of faults, the more telling first."""
BREAKS = 0.85
"""Share of a rival's episodes in which something breaks."""
TEACHER = 0.7
"""Share of the steps that a teacher takes; its student has the rest."""
WIDE = SpecialistsCfg.num_envs
"""Environments that several specialists share at least."""


class Budget(NamedTuple):
    """Environment steps of a pipeline, as its settings have them: members that rest early take fewer."""

    healthy: int
    specialists: int
    data: int

    @property
    def total(self) -> int:
        return sum(self)


def budget(task: TaskCfg) -> Budget:
    """What the task's pipeline costs; of all members together."""
    walked = task.agent.trainer.timesteps * task.env.num_envs
    if task.specialists is None or task.collect is None:
        return Budget(walked, 0, 0)
    learnt = sum(task.specialists.stages) * task.specialists.num_envs
    return Budget(walked, learnt, task.rounds * task.collect.steps * task.collect.num_envs)


class Place(NamedTuple):
    """Where a seed's rivals are trained, and from what."""

    task: TaskCfg
    """The settings that the pipeline was made with."""
    controller: Path
    """The pipeline's."""
    root: Path
    name: str
    """Of the run folder that holds them, under `root/<task>/`."""
    seed: int

    def folder(self, rival: str) -> Path:
        return self.root / self.task.name / self.name / rival

    def final(self, rival: str) -> Path:
        """The policy of a rival that is trained."""
        return self.folder(rival) / "checkpoints" / runs.FINAL

    @property
    def apart(self) -> Place:
        """Where rivals are trained that take nothing but settings from the pipeline: another detector under the same
        settings has the same ones."""
        task = self.task
        settings = [config.to_dict(part) for part in (task.env, task.agent, task.faults, task.specialists)]
        content = json.dumps([*settings, budget(task)], sort_keys=True)
        return self._replace(name=f"rivals-{self.seed}-{hashlib.sha256(content.encode()).hexdigest()[:8]}")


Train = Callable[[Place], None]


def one_policy(rival: str, history: bool) -> Train:
    """PPO under random faults, from scratch; with or without a memory."""

    def train(place: Place) -> None:
        _train_ppo(place, rival, _actor(place.task, (SENSES,), history), budget(place.task).total)

    return train


def teacher_and_student(rival: str) -> Train:
    """PPO that is told which faults there are, then a student with a memory that imitates it from its senses alone.

    Kumar et al. 2021 (RMA) in the form of DAgger: the student's memory stands for their adaptation module, and it
    imitates actions where theirs imitates an encoding of the environment.
    """

    def train(place: Place) -> None:
        task, total, teacher = place.task, budget(place.task).total, f"{rival}/teacher"
        _train_ppo(place, teacher, _actor(task, (SENSES, truth_of(task)), history=False), round(TEACHER * total))
        agent = DistillationCfg(
            teacher=str(place.final(teacher).absolute()),
            trainer=_trainer(place, total - round(TEACHER * total)),
            network=replace(task.agent.network, actor=_actor(task, (SENSES,), history=True)),
        )
        _train(place, rival, replace(_under_faults(task), agent=agent))

    return train


def _actor(task: TaskCfg, groups: tuple[str, ...], history: bool) -> AnyActorCfg:
    hidden = getattr(task.agent.network.actor, "hidden", MlpCfg.hidden)
    return GruCfg(groups, units=hidden[0], hidden=hidden[-1:]) if history else MlpCfg(groups, hidden)


def truth_of(task: TaskCfg) -> str:
    """The observation group that tells of the faults in force; KoboshiError where the task has none."""
    truth = next((group for group in TRUTHS if group in task.env.observations), None)
    if truth is None:
        raise KoboshiError(f"task '{task.name}' has none of {', '.join(TRUTHS)}, which teachers and critics are told")
    return truth


def _train_ppo(place: Place, rival: str, actor: AnyActorCfg, steps: int) -> None:
    """Its critic is told of faults, as that of the pipeline's specialists is."""
    agent = place.task.agent
    if not isinstance(agent, PPOCfg):
        raise KoboshiError(f"task '{place.task.name}' learns by {type(agent).__name__}, and its rivals by PPOCfg")
    critic = (*agent.network.critic_groups, truth_of(place.task))
    network = replace(agent.network, actor=actor, critic_groups=critic)
    agent = replace(agent, trainer=_trainer(place, steps), network=network)
    _train(place, rival, replace(_under_faults(place.task), agent=agent))


def _trainer(place: Place, steps: int) -> TrainerCfg:
    usual = place.task.agent.trainer
    return replace(usual, timesteps=max(1, steps // place.task.env.num_envs), seed=place.seed)


def _under_faults(task: TaskCfg) -> TaskCfg:
    """The task in which joints break in training too, as its specialists have it, but all kinds and in `BREAKS`."""
    faults, settings = required(task, "faults", task.faults), required(task, "specialists", task.specialists)
    env = replace(
        task.env,
        faults=FaultSchedule(with_shares(faults, settings), probability=BREAKS, onset_s=settings.onset_s),
        episode_length_s=settings.episode_length_s,
        random_initial_length=True,
    )
    return replace(task, env=env)


def _train(place: Place, rival: str, task: TaskCfg) -> None:
    healthy.train(task, place.root, f"{place.name}/{rival}", [])


def bank(rival: str, changed: Callable[[TaskCfg], TaskCfg]) -> Train:
    """Specialists of the task as it is `changed`, for the pipeline's healthy policy and detector."""

    def train(place: Place) -> None:
        walker = place.folder("healthy") / "policy.safetensors"
        if not walker.exists():
            _take_out_healthy(place.controller, walker)
        task, detector = changed(place.task), None
        if required(task, "specialists", task.specialists).detector_share:
            detector = place.folder("detector") / "detector.safetensors"
            _take_out_detector(place, detector)
        specialists.train(task, walker, detector, place.root, f"{place.name}/{rival}", [], Start())

    return train


def shared(task: TaskCfg, sharing: Sharing) -> TaskCfg:
    """The task whose specialists are shared in this way, with as many environment steps, or slightly fewer.

    Several members share at least `WIDE` environments, or each would learn from too few at a time, and the mirror
    is for one that serves all. Of equal budgets each member has its share alone, and learns in as much fewer updates.
    """
    settings = replace(required(task, "specialists", task.specialists), sharing=sharing)
    members = len(specialists.bank_assignment(replace(task, specialists=settings)).members)
    if members > 1:
        settings = replace(settings, agent=replace(settings.agent, mirror_coef=0.0))
    num_envs = (settings.num_envs if members == 1 else max(settings.num_envs, WIDE)) // members * members
    stages = tuple(max(1, steps * settings.num_envs // num_envs) for steps in settings.stages)
    return config.override(replace(task, specialists=replace(settings, num_envs=num_envs, stages=stages)), [])


def dead_pairs(task: TaskCfg) -> TaskCfg:
    """The task whose specialists meet nothing but pairs of dead joints, and are in charge at once.

    Of each pair they see far more than ten times as much as among all faults, from as many environment steps: a pair
    that they lose too is not lost for want of training on it.
    """
    faults, settings = required(task, "faults", task.faults), required(task, "specialists", task.specialists)
    faults = replace(
        faults, kinds=("torque_loss",), severity=(1.0, 1.0), whole=0.0, count=(2, 2), alike=0.0, dead=0.0,
        hold_out=False, duration_s=None, pause_s=None,
    )  # fmt: skip
    settings = replace(settings, whole=None, dead=None, focus=0.0, detector_share=0.0, switch_delay_s=(0.0, 0.0))
    return config.override(replace(task, faults=faults, specialists=settings), [])


def _take_out_healthy(controller: Path, target: Path) -> None:
    """The healthy policy of a controller's file as a policy's own."""
    policy, meta = load_healthy(controller)
    about = {
        key: meta[key] for key in ("task", "robot", "control_dt", "action", "layouts", "obs", "network", "actions")
    }
    save_policy(
        target, policy.state_dict(), about | {"kind": "policy", "members": healthy.MEMBERS, "seed": meta["seed"]}
    )


def _take_out_detector(place: Place, target: Path) -> None:
    """The detector of a controller's file as its own."""
    if not target.exists():
        stored = load(place.controller, place.task)
        save_detector(target, stored.detector, stored.alarm, {"controller": runs.digest(place.controller)})
