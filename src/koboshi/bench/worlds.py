"""Named worlds that a controller is judged in: each differs from the nominal one by one thing, always the same.

In every one of them the task's own randomisations, pushes and delays are off and sensors are as noisy as the task
says, so that figures of two worlds differ by that one thing. Values are settled here and are no ranges: a training
that draws from ranges never sees them exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from koboshi.envs import EnvCfg
from koboshi.envs.cfg import EventTerm
from koboshi.envs.events import is_change
from koboshi.envs.terms import events
from koboshi.errors import unknown
from koboshi.terrain import PlaneCfg

NOMINAL = "nominal"
"""The world without any difference."""
PUSH, EVERY_S = 0.6, 3.0
"""m/s in each direction, s."""
LOAD = 0.12
"""Share of the robot's mass, on its base."""
FRICTION = 0.45
SOFT, STIFF = 0.86, 1.16
"""Factors on stiffness and damping."""
STRENGTH = 0.72
"""Factor on the largest torque."""
STICTION = 0.012
"""Dry friction as a share of each joint's effort limit."""
LATE = 3
"""Physics steps from an action to its effect."""
SLOPE = 0.07
"""m per m."""


class World(NamedTuple):
    """`about`: for people. `change(nominal)`: the environment in this world."""

    about: str
    change: Callable[[EnvCfg], EnvCfg]


def _with(cfg: EnvCfg, name: str, event: Callable[..., None], mode: Any = "reset", **params: Any) -> EnvCfg:
    term = EventTerm(event, mode, params, interval_s=(EVERY_S, EVERY_S))
    return replace(cfg, events=cfg.events | {name: term})


def _gains(cfg: EnvCfg, factor: float) -> EnvCfg:
    return _with(cfg, "gains", events.randomise_gains, stiffness=(factor, factor), damping=(factor, factor))


def _sloped(cfg: EnvCfg) -> EnvCfg:
    return replace(cfg, scene=replace(cfg.scene, ground=PlaneCfg(slope=SLOPE)))


def _other_backend(cfg: EnvCfg) -> EnvCfg:
    if cfg.sim.backend == "warp":
        return replace(cfg, sim=replace(cfg.sim, backend="cpu", device="cpu"))
    return replace(cfg, sim=replace(cfg.sim, backend="warp"))


WORLDS: dict[str, World] = {
    NOMINAL: World("as the model says", lambda cfg: cfg),
    "pushed": World(
        f"a shove of up to {PUSH} m/s in each direction every {EVERY_S:g} s",
        lambda cfg: _with(cfg, "push", events.push, "interval", velocity=PUSH),
    ),
    "loaded": World(
        f"{LOAD:.0%} of the robot's mass more on its base",
        lambda cfg: _with(cfg, "mass", events.randomise_mass, add=(0.0, 0.0), of_robot=(LOAD, LOAD)),
    ),
    "slippery": World(
        f"sliding friction {FRICTION}",
        lambda cfg: _with(cfg, "friction", events.randomise_friction, range=(FRICTION, FRICTION)),
    ),
    "soft_gains": World(f"stiffness and damping × {SOFT}", lambda cfg: _gains(cfg, SOFT)),
    "stiff_gains": World(f"stiffness and damping × {STIFF}", lambda cfg: _gains(cfg, STIFF)),
    "weak_motors": World(
        f"largest torques × {STRENGTH}",
        lambda cfg: _with(cfg, "strength", events.randomise_strength, range=(STRENGTH, STRENGTH)),
    ),
    "sticky_joints": World(
        f"dry friction of {STICTION:.1%} of each joint's effort limit",
        lambda cfg: _with(
            cfg, "joint_friction", events.randomise_joint_friction, add=(0.0, 0.0), of_effort=(STICTION, STICTION)
        ),
    ),
    "late": World(
        f"actions act {LATE} physics steps late",
        lambda cfg: replace(cfg, actions=replace(cfg.actions, delay=(LATE, LATE))),
    ),
    "sloped": World(f"uphill along the world's x, {SLOPE:.0%}", _sloped),
    "other_backend": World("MuJoCo Warp in place of MuJoCo, or the other way round", _other_backend),
}
WALKED = tuple(name for name in WORLDS if name != "other_backend")
"""Those that are walked without being named: on a CPU the other backend takes as long as all others together."""


def in_world(cfg: EnvCfg, name: str) -> EnvCfg:
    """The environment in one of `WORLDS`; KoboshiError where there is no such one."""
    if name not in WORLDS:
        raise unknown("world", name, WORLDS)
    return WORLDS[name].change(nominal(cfg))


def nominal(cfg: EnvCfg) -> EnvCfg:
    """Without randomisations, shoves and delays: what places a robot at a reset stays, and so does sensors' noise."""
    kept: dict[str, EventTerm | None] = {}
    kept |= {name: term for name, term in cfg.events.items() if term is not None and not is_change(term)}
    sure = {
        name: replace(group, terms={n: t if t is None else replace(t, delay=(0, 0)) for n, t in group.terms.items()})
        for name, group in cfg.observations.items()
    }
    return replace(cfg, events=kept, actions=replace(cfg.actions, delay=(0, 0)), observations=sure)
