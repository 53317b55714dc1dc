"""Policies as files: safetensors with everything needed to check them before use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from koboshi import config
from koboshi.errors import KoboshiError
from koboshi.policies import ActorCritic, NetworkCfg
from koboshi.runs import check_shapes, load_checkpoint, save_checkpoint
from koboshi.vec_env import ActionSpace, ObsSpec, Place, age_of

Layout = list[list[Any]]
"""[[term, start, width, history], …] of an observation group; scale and clip follow where they change anything."""
Meta = dict[str, Any]


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str: ...


class LayoutEntry(Protocol):
    """Where a term lies in its group's vector."""

    @property
    def name(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def history(self) -> int: ...
    @property
    def scaled(self) -> tuple[float, float | None] | None: ...


@runtime_checkable
class PolicyEnv(Protocol):
    """What an environment must say about itself for a policy's file to be checked against it."""

    step_dt: float
    device: torch.device
    action_space: ActionSpace
    cfg: Any

    @property
    def robot(self) -> Named: ...
    @property
    def obs_spec(self) -> Mapping[str, ObsSpec]: ...
    @property
    def layouts(self) -> Mapping[str, Sequence[LayoutEntry]]: ...


def layout_of(env: PolicyEnv, group: str) -> Layout:
    """A group's layout; a term that stands alone (`eyes.left`) is its own."""
    if group in env.layouts:
        return [[e.name, e.start, e.width, e.history, *(e.scaled or ())] for e in env.layouts[group]]
    return [[group, 0, prod(env.obs_spec[group].shape), 1]]


def policy_meta(env: PolicyEnv, task: str, policy: ActorCritic, members: list[str]) -> Meta:
    """What a policy's file says about itself: robot, control period, network, member names, and the layouts of the
    observation groups that the policy names."""
    return {
        "kind": "policy",
        "task": task,
        "robot": env.robot.name,
        "control_dt": env.step_dt,
        "action": _actions(env),
        "layouts": {group: layout_of(env, group) for group in policy.obs_spec},
        "obs": {group: [list(s.shape), str(s.dtype).removeprefix("torch.")] for group, s in policy.obs_spec.items()},
        "network": config.to_dict(policy.cfg),
        "actions": env.action_space._asdict(),
        "members": members,
    }


def _actions(env: PolicyEnv) -> Any:
    """The action terms; from the whole tree, which knows which type each of them is."""
    return config.to_dict(env.cfg)["actions"]


def _without_delay(value: Any) -> Any:
    """How late actions arrive is the world's matter, and it may differ from the one trained in."""
    return {k: v for k, v in value.items() if k != "delay"} if isinstance(value, dict) else value


def check_layouts(meta: Meta, env: PolicyEnv, path: Path) -> None:
    """KoboshiError where a file was made for another robot, control period, action or observation layout."""
    for key, mine in (("robot", env.robot.name), ("control_dt", env.step_dt), ("action", _actions(env))):
        if _without_delay(meta.get(key)) != _without_delay(mine):
            raise KoboshiError(f"{path} was made for {key} {meta.get(key)!r}, not {mine!r}")
    _check_groups(meta, env, path)


def _check_groups(meta: Meta, env: PolicyEnv, path: Path) -> None:
    with _reading(path):
        layouts: dict[str, Layout] = dict(meta["layouts"])
    for group, theirs in layouts.items():
        mine = layout_of(env, group) if group in env.obs_spec else None
        if theirs != mine:
            raise KoboshiError(
                f"{path} was made for another layout of observation group '{group}': {_terms(theirs)}, "
                f"not {_terms(mine)}{_first_difference(theirs, mine)}"
            )


def _terms(layout: Layout | None) -> str:
    """The terms of one step, and how many steps there are."""
    words = [f"{name} {width}" for name, _, width, *_ in layout or [] if not age_of(name)]
    steps = f", each {_steps(layout)} times" if layout and _steps(layout) > 1 else ""
    return (", ".join(words) or "(none)") + steps


def _steps(layout: Layout) -> int:
    """Of a group's history: `joint_pos-5` is the joints five steps ago."""
    return 1 + max(age_of(name) for name, *_ in layout)


def _first_difference(theirs: Layout, mine: Layout | None) -> str:
    """The number that differs, where the terms are the same ones."""
    if not mine or not theirs:
        return ""
    if _steps(theirs) != _steps(mine):
        return f" (a history of {_steps(theirs)} steps, not {_steps(mine)})"
    names, my_names = [e[0] for e in theirs], [e[0] for e in mine]
    if names != my_names:
        return " (its steps are in another order)" if sorted(names) == sorted(my_names) and _steps(mine) > 1 else ""
    for (name, _, width, history, *units), (_, _, my_width, my_history, *my_units) in zip(theirs, mine, strict=True):
        if (width, history) != (my_width, my_history):
            return f" ('{name}' has {width} numbers and a history of {history}, not {my_width} and {my_history})"
        if units != my_units:
            (scale, clip), (my_scale, my_clip) = units or (1.0, None), my_units or (1.0, None)
            return f" ('{name}' has scale {scale} and clip {clip}, not {my_scale} and {my_clip})"
    return ""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What a file says about itself may be an older version's."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise KoboshiError(f"{path} was written by another version of koboshi: {error!r}") from error
    except KoboshiError as error:
        raise KoboshiError(f"{path} was written by another version of koboshi, or with a --module: {error}") from error


def _spec(meta: Meta) -> dict[str, ObsSpec]:
    return {
        group: ObsSpec(tuple(shape), getattr(torch, dtype), _places(meta["layouts"][group]) if len(shape) == 1 else ())
        for group, (shape, dtype) in meta["obs"].items()
    }


def _places(layout: Layout) -> tuple[Place, ...]:
    return tuple(Place(name, start, width) for name, start, width, *_ in layout)


def _space(meta: Meta) -> ActionSpace:
    stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["actions"].items()}
    return ActionSpace(**stored)


def build_policy(tensors: Mapping[str, Tensor], meta: Meta, members: int, part: str, path: Path) -> ActorCritic:
    """The actor-critic (on the CPU) whose weights are those under `part`; KoboshiError where they do not fit."""
    with _reading(path):
        network = config.from_dict(NetworkCfg(), meta["network"])
        policy = ActorCritic(members, _spec(meta), _space(meta), network)
    weights = tensors_under(tensors, part)
    check_shapes(weights, policy.state_dict(), f"the {part} network of {path}")
    policy.load_state_dict(weights)
    return policy.eval().requires_grad_(False)


def tensors_under(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Those of one part of a file, by their names in it."""
    return {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}


def load_policy(path: Path, env: PolicyEnv, device: torch.device | str | None = None) -> tuple[ActorCritic, Meta]:
    """The policy (or stack of them) of a checkpoint or policy file, checked against `env`.

    It lies on `device`, by default the environment's.
    """
    tensors, meta = load_checkpoint(path, expect={"kind": "policy"})
    check_layouts(meta, env, path)
    with _reading(path):
        members = len(meta["members"])
    return build_policy(tensors, meta, members, "policy", path).to(device or env.device), meta


def load_single(path: Path, env: PolicyEnv, device: torch.device | str | None = None) -> tuple[ActorCritic, Meta]:
    """A single policy, as a stack of one; KoboshiError where the file holds a bank."""
    found = load_checkpoint(path, expect={"kind": "policy"})[1].get("members", [])
    if len(found) > 1:
        raise KoboshiError(
            f"{path} is a bank of {len(found)} specialists, and one policy is wanted; "
            f"each has a file of its own in its run's members/: {', '.join(found)}"
        )
    return load_policy(path, env, device)


def load_weights(path: Path, policy: ActorCritic, env: PolicyEnv, members: list[str]) -> None:
    """Puts a file's whole actor-critic into `policy`, to be trained on under other settings.

    Robot, members, observation layouts and every shape must be the same: KoboshiError says which number is not.
    Control period and action terms may be others, and so may all that shapes nothing.
    """
    tensors, meta = load_checkpoint(path, expect={"kind": "policy", "robot": env.robot.name})
    if meta.get("members") != members:
        theirs, mine = (f"{len(names or [])} ({', '.join(names or [])})" for names in (meta.get("members"), members))
        raise KoboshiError(f"{path} holds policies of {theirs} members, not of {mine}")
    _check_groups(meta, env, path)
    weights = tensors_under(tensors, "policy")
    try:
        check_shapes(weights, policy.state_dict(), f"the network to be trained (from {path})")
    except KoboshiError as error:
        changed = "; ".join(config.diff({"network": meta.get("network")}, {"network": config.to_dict(policy.cfg)}))
        raise KoboshiError(f"{error}{f'; {changed}' if changed else ''}") from error
    policy.load_state_dict(weights)


def save_policy(path: Path, state: Mapping[str, Tensor], meta: Meta) -> None:
    """Writes a policy's weights alone."""
    save_checkpoint(path, {f"policy.{name}": value for name, value in state.items()}, meta)
