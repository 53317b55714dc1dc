"""Who takes part in the benchmark: a name, what it is, and how its controller is made for a seed.

A new one is a line of ENTRANTS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from koboshi import runs
from koboshi.envs import Env
from koboshi.errors import KoboshiError, unknown
from koboshi.policies.storage import load_single
from koboshi.runs import load_checkpoint
from koboshi.specialists.assignment import Sharing
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import OracleRouter
from koboshi.specialists.storage import StoredController
from koboshi.stages import rivals, specialists
from koboshi.stages.evaluate import healthy_alone, loading_env
from koboshi.stages.folders import find, task_of
from koboshi.stages.rivals import Place, Train, budget
from koboshi.tasks import TaskCfg
from koboshi.vec_env import Policy


@dataclass(frozen=True)
class Seed:
    """What there is of one training seed."""

    task: TaskCfg
    """In which controllers are judged."""
    place: Place

    @property
    def number(self) -> int:
        return self.place.seed

    @cached_property
    def env(self) -> Env:
        return loading_env(self.task)

    @cached_property
    def stored(self) -> StoredController:
        return StoredController(self.place.controller, self.env)

    @property
    def walker(self) -> Policy:
        """Who walks until the handover."""
        return self.stored.healthy

    @property
    def joints(self) -> int:
        return len(self.stored.robot.joint_names)


class Entrant(NamedTuple):
    """One line of the table."""

    about: str
    make: Callable[[Seed], Controller]
    """Raises KoboshiError where a file is missing."""
    files: Callable[[Place], list[Path]]
    """What it is made from."""
    parts: tuple[str, ...]
    """Of these files' tensors, those that act."""
    steps: Callable[[TaskCfg], int]
    """Environment steps that it was trained with, over all members."""
    detects: bool = False
    """Whether its alarms are its own."""
    counted: bool = False
    """Whether its false alarms, and its falls, are counted for hours in which nothing breaks; banks under the same
    detector have the same alarms."""
    everywhere: bool = True
    """Whether it walks in other worlds than the nominal one."""
    train: Train | None = None
    """How it is made where it does not come from the pipeline."""
    sharing: Sharing | None = None
    """How its specialists are shared, where that is what it is about."""
    met: Callable[[TaskCfg], TaskCfg] = lambda task: task
    """The task that its specialists learnt in, of the pipeline's."""


def _controller(place: Place) -> list[Path]:
    return [place.controller]


def _whole(task: TaskCfg) -> int:
    return budget(task).total


def _of_policies(task: TaskCfg) -> int:
    return budget(task).healthy + budget(task).specialists


def _oracle(about: str, delay_s: float) -> Entrant:
    def make(seed: Seed) -> Controller:
        stored = seed.stored
        return stored.routed_by(OracleRouter(stored.assignment, stored.robot, seed.task.env.step_dt, delay_s))

    return Entrant(about, make, _controller, ("healthy", "bank"), _of_policies, everywhere=delay_s == 0)


def _policy(rival: str, about: str, train: Train) -> Entrant:
    def make(seed: Seed) -> Controller:
        return healthy_alone(load_single(seed.place.apart.final(rival), seed.env)[0].single(), seed.joints)

    return Entrant(
        about, make, lambda place: [place.apart.final(rival)], ("policy",), _whole,
        train=lambda place: train(place.apart),
    )  # fmt: skip


def _switch(sharing: Sharing) -> str:
    whom = {"joint": "a joint", "mirrored_pair": "a mirrored pair", "limb": "a limb", "one": "for all"}
    return f"the learned switch, one specialist {whom[sharing]}"


def _bank_file(rival: str, place: Place) -> Path:
    return place.folder(rival) / specialists.BANK


def _own_bank(rival: str, seed: Seed, task: TaskCfg) -> SpecialistBank:
    """The bank that a rival trained for a task."""
    policy = specialists.load_bank(_bank_file(rival, seed.place), seed.env)
    assignment = specialists.bank_assignment(task)
    mirror = seed.env.mirror_map(policy.actor.groups) if assignment.uses_mirror else None
    return SpecialistBank(policy, assignment, mirror)


def _bank(rival: str, sharing: Sharing) -> Entrant:
    def changed(task: TaskCfg) -> TaskCfg:
        return rivals.shared(task, sharing)

    def make(seed: Seed) -> Controller:
        stored = seed.stored
        return stored.switched(_own_bank(rival, seed, changed(seed.place.task)), stored.alarm, stored.switch)

    return Entrant(
        _switch(sharing), make, lambda place: [place.controller, _bank_file(rival, place)],
        ("healthy", "policy", "detector"), _whole,
        detects=True, everywhere=False, train=rivals.bank(rival, changed), sharing=sharing,
    )  # fmt: skip


def _oracle_of_pairs(rival: str) -> Entrant:
    def make(seed: Seed) -> Controller:
        stored, bank = seed.stored, _own_bank(rival, seed, rivals.dead_pairs(seed.place.task))
        router = OracleRouter(bank.assignment, stored.robot, seed.task.env.step_dt, 0.0)
        return Controller(stored.healthy, bank, router, stored.switch.blend_steps)

    return Entrant(
        "an oracle whose bank met pairs of dead joints alone", make,
        lambda place: [place.controller, _bank_file(rival, place)], ("healthy", "policy"), _of_policies,
        everywhere=False, train=rivals.bank(rival, rivals.dead_pairs), met=rivals.dead_pairs,
    )  # fmt: skip


ENTRANTS: dict[str, Entrant] = {
    "B0": Entrant(
        "the healthy policy alone", lambda seed: healthy_alone(seed.walker, seed.joints), _controller, ("healthy",),
        lambda task: budget(task).healthy, counted=True,
    ),
    "B1": _policy("B1", "one policy trained under random faults", rivals.one_policy("B1", history=False)),
    "B1h": _policy("B1h", "the same with a memory (GRU)", rivals.one_policy("B1h", history=True)),
    "B2": _policy("B2", "a student with a memory, of a teacher told of faults", rivals.teacher_and_student("B2")),
    "B3": _oracle("the bank under an oracle", 0.0),
    "B3d60": _oracle("the oracle 60 ms late", 0.06),
    "B3d200": _oracle("the oracle 200 ms late", 0.2),
    "B3d500": _oracle("the oracle 500 ms late", 0.5),
    "B3pairs": _oracle_of_pairs("B3pairs"),
    "B4": Entrant(
        "the learned switch", lambda seed: seed.stored.learned(), _controller, ("healthy", "bank", "detector"), _whole,
        detects=True, counted=True,
    ),
    "B5joint": _bank("B5joint", "joint"),
    "B5pair": _bank("B5pair", "mirrored_pair"),
    "B5limb": _bank("B5limb", "limb"),
    "B5one": _bank("B5one", "one"),
}  # fmt: skip
"""The benchmark's controllers, in the order to show them."""
MAIN, HEALTHY, ORACLE, SINGLE = "B4", "B0", "B3", ("B1", "B1h", "B2")
BANKS = tuple(name for name, entrant in ENTRANTS.items() if entrant.sharing is not None)


def chosen(names: Sequence[str]) -> list[str]:
    """Those named, or all, in the table's order; KoboshiError for one that is not there."""
    for name in names:
        if name not in ENTRANTS:
            raise unknown("controller", name, ENTRANTS)
    return [name for name in ENTRANTS if not names or name in names]


def check_seeds(pipeline: str, seeds: Sequence[int]) -> None:
    """KoboshiError where one pipeline would pass for several training seeds."""
    if len(seeds) > 1 and "{seed}" not in pipeline:
        raise KoboshiError(
            f"--pipeline {pipeline} names one training, not those of the seeds {', '.join(map(str, seeds))}: write "
            "{seed} where they differ, or give --seed once"
        )


def seed_of(task: TaskCfg, pipeline: str, number: int, root: Path) -> Seed:
    """What `pipeline` ({task} and {seed} filled in) names: a run, its folder or a controller's file."""
    name = pipeline.replace("{task}", task.name).replace("{seed}", str(number))
    path = find(name, root)
    if path.suffix != ".safetensors" or load_checkpoint(path)[1].get("kind") != "controller":
        raise KoboshiError(f"{path} is no controller; the benchmark needs a whole pipeline's")
    # Banks of another controller have another healthy policy and detector: they have another folder.
    return Seed(task, Place(task_of(path), path, root, f"rivals-{number}-{runs.digest(path)[:8]}", number))


def same_as(name: str, place: Place) -> str | None:
    """The controller that this one would only repeat: the pipeline's own has its specialists shared like this."""
    task, sharing = place.task, ENTRANTS[name].sharing
    return MAIN if sharing and task.specialists is not None and task.specialists.sharing == sharing else None


def missing(name: str, place: Place) -> list[Path]:
    """Files that an entrant lacks."""
    return [path for path in ENTRANTS[name].files(place) if not path.is_file()]


def about(name: str, place: Place) -> dict[str, Any]:
    """What a part says of its controller beside its files: the steps that it took, what it met, and its size."""
    entrant, task = ENTRANTS[name], place.task
    banked, faults = task.specialists if name == MAIN else None, entrant.met(task).faults
    return {
        "about": entrant.about if banked is None else _switch(banked.sharing),
        "steps": entrant.steps(task),
        "parameters": sum(_parameters(path, entrant.parts) for path in entrant.files(place)),
        "kinds": list(faults.kinds) if faults is not None else [],
        "count": list(faults.count) if faults is not None else [],
    }


def _parameters(path: Path, parts: Sequence[str]) -> int:
    """Numbers that act: of these parts, critics left out."""
    tensors = load_checkpoint(path)[0]
    learning = ("critic", "value_norm", "norms.critic")
    acting = (n for n in tensors if n.split(".")[0] in parts and not n.split(".", 1)[1].startswith(learning))
    return sum(tensors[name].numel() for name in acting)


def digests(name: str, place: Place) -> list[str]:
    """sha256 of each file that an entrant is made from."""
    return [runs.digest(path) for path in ENTRANTS[name].files(place)]
