"""The contract of an exported controller, from the environment it was trained in."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from koboshi.deploy.contract import FORMAT
from koboshi.deploy.senses import TERMS
from koboshi.envs import Env
from koboshi.envs.cfg import ObsGroup, ObsTerm, SceneCfg
from koboshi.envs.scene import Scene
from koboshi.errors import KoboshiError
from koboshi.vec_env import Obs


def contract_of(env: Env, groups: tuple[str, ...], carried: list[Tensor], obs: Obs) -> dict[str, Any]:
    """Everything that `deploy.contract` describes. KoboshiError for an observation that a robot cannot compute."""
    robot, cfg, law = env.robot, env.cfg, env.robot.law
    wanted = _with_bases(cfg.observations, groups)
    first = {i: leaf.tolist() for i, leaf in enumerate(carried) if bool(leaf.any())}
    return {
        "format": FORMAT,
        "robot": robot.name,
        "joints": list(robot.joint_names),
        "default_joint_pos": robot.default_joint_pos.tolist(),
        "targets": [actuator.target for actuator in robot.joint_actuators.values()],
        "actuators": {
            name: getattr(law, name).tolist() for name in ("control", "position", "velocity", "effort_limit")
        },
        "base_height": robot.base_height,
        "fall_height": robot.fall_height,
        "control_dt": env.step_dt,
        "physics_dt": cfg.sim.timestep,
        "action": _actions(env),
        "observations": {name: _group(env, name, cfg.observations[name]) for name in wanted},
        "commands": {name: list(getattr(cfg.command, name)) for name in ("lin_vel_x", "lin_vel_y", "ang_vel_z")},
        "inputs": {group: list(obs[group].shape) for group in groups},
        "carried": [[list(leaf.shape), str(leaf.dtype).removeprefix("torch.")] for leaf in carried],
        "initial": first,
    }


def _with_bases(observations: dict[str, ObsGroup], groups: tuple[str, ...]) -> list[str]:
    """These groups and those that they begin with, in the configuration's order."""
    wanted = set(groups)
    for group in groups:
        base = observations[group].base
        while base is not None:
            wanted.add(base)
            base = observations[base].base
    return [name for name in observations if name in wanted]


def _actions(env: Env) -> dict[str, Any]:
    """Of the policy's numbers in its own order: whose they are, and target = offset + scale · number."""
    manager, space = env.actions, env.action_space
    offset, scale = (part[manager.joints].tolist() for part in (manager.offset, manager.scale))
    assert space.low is not None and space.high is not None
    bounds = {"low": list(space.low), "high": list(space.high)}
    return {"joints": list(manager.joints), "offset": offset, "scale": scale, **bounds}


def _group(env: Env, name: str, group: ObsGroup) -> dict[str, Any]:
    terms = {term: cfg for term, cfg in group.terms.items() if cfg is not None}
    return {
        "base": group.base,
        "history_length": group.history_length,
        "newest_first": group.newest_first,
        "terms": [_term(env, name, term, cfg) for term, cfg in terms.items()],
    }


def _term(env: Env, group: str, name: str, cfg: ObsTerm) -> dict[str, Any]:
    func = getattr(cfg.func, "__name__", repr(cfg.func))
    if func not in TERMS or not cfg.func.__module__.startswith("koboshi."):
        raise KoboshiError(
            f"observation '{group}.{name}' ({func}) is none that a robot computes; those are: {', '.join(TERMS)}"
        )
    joints = cfg.params.get("joints")
    chosen = None if joints is None else env.robot.joint_ids(*joints)
    return {
        "name": name, "func": func, "joints": chosen, "scale": cfg.scale, "clip": cfg.clip, "history": cfg.history,
    }  # fmt: skip


def robot_xml(env: Env) -> str:
    """MJCF of what is stepped, on a plane, with nothing else around. KoboshiError where that needs files of meshes."""
    scene = Scene(SceneCfg(contacts=env.cfg.scene.contacts), env.robot, env.cfg.sim)
    if scene.model.nmesh:
        raise KoboshiError(
            f"{env.robot.name} collides with {scene.model.nmesh} meshes, which no single file holds; "
            "export it with env.scene.contacts=feet"
        )
    return str(scene.spec.to_xml())
