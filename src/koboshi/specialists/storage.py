"""Policies and whole controllers as files: safetensors with everything needed to check them before use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from koboshi.algos.ppo import ActorCritic, MirrorMap, NetworkCfg
from koboshi.detect.alarms import AlarmCfg
from koboshi.detect.model import DetectorCfg, DetectorSpec, FaultDetector
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.runs import check_shapes, load_checkpoint, save_checkpoint
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import DetectorRouter, Router
from koboshi.vec_env import ActionSpace

Layout = list[list[Any]]


def layouts_of(env: Env) -> dict[str, Layout]:
    """Group -> [[term, start, width], …] of what policies, critics and detectors see."""
    return {
        group: [[e.name, e.start, e.width] for e in env.layouts[group]] for group in ("policy", "critic", "detector")
    }


def policy_meta(env: Env, task: str, network: NetworkCfg, members: list[str]) -> dict[str, Any]:
    """What a policy's file says about itself: robot, layouts, network, control period, member names."""
    return {
        "kind": "policy",
        "task": task,
        "robot": env.robot.name,
        "control_dt": env.step_dt,
        "action": asdict(env.cfg.action),
        "layouts": layouts_of(env),
        "network": asdict(network),
        "actions": env.action_space.dim,
        "members": members,
    }


def check_layouts(meta: dict[str, Any], env: Env, path: Path) -> None:
    """KoboshiError where a file was made for another robot, control period, action or observation layout."""
    action = asdict(env.cfg.action)
    # Checkpoints from before the action was written down say nothing about it.
    found = {"action": action} | meta
    for key, mine in (("robot", env.robot.name), ("control_dt", env.step_dt), ("action", action)):
        if found.get(key) != mine:
            raise KoboshiError(f"{path} was made for {key} {meta.get(key)!r}, not {mine!r}")
    for group, layout in layouts_of(env).items():
        theirs = (meta.get("layouts") or {}).get(group)
        if theirs != layout:
            raise KoboshiError(
                f"{path} was made for another layout of observation group '{group}': "
                f"{_terms(theirs)}, not {_terms(layout)}"
            )


def _terms(layout: Layout | None) -> str:
    return ", ".join(f"{name} {width}" for name, _, width in layout or []) or "(none)"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What a file says about itself may be an older version's."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise KoboshiError(f"{path} was written by another version of koboshi: {error!r}") from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def build_policy(tensors: dict[str, Tensor], meta: dict[str, Any], members: int, part: str, path: Path) -> ActorCritic:
    """The actor-critic whose weights are those under `part`; KoboshiError where they do not fit."""
    with _reading(path):
        dims = {group: sum(width for _, _, width in layout) for group, layout in meta["layouts"].items()}
        space, network = ActionSpace(meta["actions"]), TypeAdapter(NetworkCfg).validate_python(meta["network"])
        policy = ActorCritic(members, dims["policy"], dims["critic"], space, network)
    tensors = _under(tensors, f"{part}.")
    check_shapes(tensors, policy.state_dict(), f"the {part} network of {path}")
    policy.load_state_dict(tensors)
    return policy.eval().requires_grad_(False)


def load_policy(path: Path, env: Env | None = None) -> tuple[ActorCritic, dict[str, Any]]:
    """The policy of a training checkpoint or policy file; checked against `env` where one is given."""
    tensors, meta = load_checkpoint(path, expect={"kind": "policy"})
    if env is not None:
        check_layouts(meta, env, path)
    with _reading(path):
        members = len(meta["members"])
    return build_policy(tensors, meta, members, "policy", path), meta


def load_healthy(path: Path, env: Env) -> tuple[ActorCritic, dict[str, Any]]:
    """A single policy; KoboshiError where the file holds a bank."""
    found = load_checkpoint(path, expect={"kind": "policy"})[1].get("members", [])
    if len(found) > 1:
        raise KoboshiError(
            f"{path} is a bank of {len(found)} specialists, and one policy is wanted; "
            f"each has a file of its own in its run's members/: {', '.join(found)}"
        )
    return load_policy(path, env)


def save_policy(path: Path, state: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes a policy's weights alone."""
    save_checkpoint(path, {f"policy.{name}": value for name, value in state.items()}, meta)


def save_controller(
    path: Path,
    meta: dict[str, Any],
    healthy: ActorCritic,
    bank: ActorCritic,
    assignment: Assignment,
    detector: FaultDetector,
    alarm: AlarmCfg,
) -> None:
    """The whole controller as one file; `meta` starts from `policy_meta`."""
    parts = {"healthy": healthy, "bank": bank, "detector": detector}
    tensors = {f"{p}.{n}": v for p, module in parts.items() for n, v in module.state_dict().items()}
    extra = {
        "kind": "controller",
        "assignment": asdict(assignment),
        "detector_spec": detector.spec.to_dict(),
        "detector_cfg": asdict(detector.cfg),
        "alarm": asdict(alarm),
    }
    save_checkpoint(path, tensors, meta | extra)


class StoredController:
    """A controller file's parts, to be put together with any router."""

    def __init__(self, path: Path, env: Env) -> None:
        """KoboshiError where the file is not a controller, is damaged, or was made for something else than `env`."""
        tensors, self.meta = load_checkpoint(path, expect={"kind": "controller"})
        check_layouts(self.meta, env, path)
        with _reading(path):
            self.assignment = TypeAdapter(Assignment).validate_python(self.meta["assignment"])
            spec = DetectorSpec.from_dict(self.meta["detector_spec"])
            self.detector = FaultDetector(spec, DetectorCfg(**self.meta["detector_cfg"]))
            self.alarm = AlarmCfg(**self.meta["alarm"])
        self.healthy = build_policy(tensors, self.meta, 1, "healthy", path)
        bank = build_policy(tensors, self.meta, len(self.assignment.members), "bank", path)
        self.bank = SpecialistBank(bank, self.assignment, env.robot, mirror_of(env))
        state = _under(tensors, "detector.")
        check_shapes(state, self.detector.state_dict(), f"the detector network of {path}")
        self.detector.load_state_dict(state)
        self.detector.eval().requires_grad_(False)

    def learned(self) -> Controller:
        """The controller as it would run on a robot."""
        return Controller(self.healthy, self.bank, DetectorRouter(self.detector, self.alarm))

    def routed_by(self, router: Router) -> Controller:
        """The same policies under another router."""
        return Controller(self.healthy, self.bank, router)


def mirror_of(env: Env) -> MirrorMap:
    """The environment's mirror of policy observations and actions."""
    return MirrorMap(*env.mirror("policy"), *env.mirror("action"))
