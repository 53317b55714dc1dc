"""One robot under a controller, to be broken, healed, shoved and commanded between any two control steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from koboshi import robots
from koboshi.bench.worlds import nominal
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import HeadingCfg
from koboshi.envs.terms import events
from koboshi.errors import KoboshiError, unknown
from koboshi.faults import KINDS, Fault, FaultsOnDemand, check_fault
from koboshi.live.moment import HEALTHY, NOBODY, Moment, Note, NoteKind
from koboshi.robots import Robot
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import Route
from koboshi.vec_env import Obs, State

KEPT_S = 8.0
"""How far back a session remembers, s."""
LIES_S = 1.5
"""How long a robot that has fallen lies there before it stands up anew, s."""
SHOVE = 2.0
"""The hardest shove in each direction, m/s."""
AXES = {"v_x": "m/s", "v_y": "m/s", "yaw rate": "rad/s"}
_WALK = (0.6, 0.0, 0.0)


class Driver(NamedTuple):
    """A controller and the table that says who its members are; without one nobody listens to its router."""

    controller: Controller
    assignment: Assignment | None


class Quantity(NamedTuple):
    """Something of the world that can be set, between `low` and `high`."""

    about: str
    unit: str
    nominal: float
    low: float
    high: float
    apply: Callable[[Env, Tensor, float], None]


def session_cfg(cfg: EnvCfg) -> EnvCfg:
    """One robot in the nominal world, on a CPU; it never times out, and only the session says when it has fallen."""
    joints = len(robots.find(cfg.robot).joint_names)
    return replace(
        nominal(cfg),
        num_envs=1,
        sim=replace(cfg.sim, backend="cpu", device="cpu"),
        faults=FaultsOnDemand(joints),
        terminations={},
        curriculum={},
        # No command holds a heading by itself; the session may.
        command=replace(cfg.command, heading=replace(cfg.command.heading or HeadingCfg(), fraction=0.0)),
        random_initial_length=False,
        max_nan_rate=1.0,
    )


class Session:
    """A robot of J joints that is stepped by whoever holds the session; it is not to be touched by two threads.

    drivers: name -> controller, the first one in force; all must have been made for this robot and its senses.
    history: the moments of the last KEPT_S; notes: what happened in them and before, the newest last.
    A reset gives a whole robot in the same world and cell of the ground, under the same command and controller.
    trained: type of ground -> mean level that training had come to, where the first controller's run says so.
    """

    def __init__(
        self, cfg: EnvCfg, drivers: Mapping[str, Driver], seed: int = 0, trained: Mapping[str, float] | None = None
    ) -> None:
        if not drivers:
            raise KoboshiError("a session needs at least one controller")
        self._fallen = [term for term in cfg.terminations.values() if term is not None and not term.time_out]
        self.cfg = session_cfg(cfg)
        self.env = Env(self.cfg)
        self.trained = dict(trained or {})
        levels = self.env.scene.levels
        self.kinds, self.levels = levels.types, levels.count
        self.cell = (0, self.kinds[0])
        """Level and type of the ground that the robot begins on."""
        levels.pin(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        self.quantities = _quantities(self.env)
        self.drivers = dict(drivers)
        self.controller = next(iter(self.drivers))
        self.command_ranges = tuple(getattr(cfg.command, name) for name in ("lin_vel_x", "lin_vel_y", "ang_vel_z"))
        walk = zip(_WALK, self.command_ranges, strict=True)
        self.command = tuple(min(max(value, low), high) for value, (low, high) in walk)
        self.world = {name: quantity.nominal for name, quantity in self.quantities.items()}
        self.history: deque[Moment] = deque(maxlen=round(KEPT_S / self.env.step_dt))
        self.notes: deque[Note] = deque(maxlen=50)
        self.faults: Mapping[str, Fault] = {}
        self._everyone = torch.ones(1, dtype=torch.bool)
        self._fresh = self._everyone
        self._obs: Obs = {}
        self._state: State = None
        self._seed, self._steps, self._lies = seed, 0, 0
        self._onsets: dict[str, float] = {}
        self._heading: Tensor | None = None
        self._stand_up()
        self.now = self._look(None)

    @property
    def robot(self) -> Robot:
        return self.env.robot

    @property
    def time(self) -> float:
        """s of simulation since the session began."""
        return self._steps * self.env.step_dt

    def step(self) -> Moment:
        """A control step; of a robot that has fallen, a step of lying there."""
        self._steps += 1
        route = None
        if self._lies > 1:
            self._lies -= 1
        elif self._lies == 1:
            self.reset()
        else:
            driver = self.drivers[self.controller].controller
            decision, self._state = driver.act(self._obs, self._fresh, self._state)
            route = decision.route
            step = self.env.step(decision.action)
            self._obs, self._fresh = step.obs, step.terminated
            self._check_fall(bool(step.terminated))
        self._advance(self._look(route))
        return self.now

    def _advance(self, moment: Moment) -> None:
        before, self.now = self.now, moment
        decided = self.time - self.env.step_dt  # before the step that has just been made
        self.history.append(moment)
        if moment.alarm is not None and moment.controller == before.controller:
            old = before.alarm if before.alarm is not None else np.zeros_like(moment.alarm)
            for j in np.flatnonzero(moment.alarm & ~old).tolist():
                self._note("alarm", self._alarm_text(self.robot.joint_names[j], decided), decided)
        if moment.actor != before.actor and NOBODY not in (moment.actor, before.actor):
            self._note("switch", f"{before.actor} → {moment.actor}", decided)

    def _alarm_text(self, joint: str, time: float) -> str:
        if joint not in self._onsets:
            return f"false alarm: {joint}"
        return f"{joint} noticed after {1000 * (time - self._onsets[joint]):.0f} ms"

    def _check_fall(self, failed: bool) -> None:
        """`failed`: physics gave NaN, and the environment has begun anew by itself."""
        if failed or any(bool(term.func(self.env, **term.params)) for term in self._fallen):
            self._note("fall", "the robot fell")
            self._lies = max(1, round(LIES_S / self.env.step_dt))

    def _look(self, route: Route | None) -> Moment:
        """route: None where nobody has decided since the last moment."""
        state, assignment = self.env.state, self.drivers[self.controller].assignment
        belief = None if route is None or assignment is None else route.belief
        return Moment(
            time=self.time,
            qpos=self.env.qpos[0].double().numpy().copy(),
            command=self.env.command.value[0].numpy().copy(),
            velocity=torch.cat((state.lin_vel_yaw[0], state.base_ang_vel[0, 2:])).numpy(),
            controller=self.controller,
            actor=_actor(route, assignment),
            probability=None if belief is None else belief.probability[0].numpy().copy(),
            alarm=None if belief is None else belief.alarm[0].numpy().copy(),
            levels=None if belief is None else belief.levels[0].view(len(KINDS), -1).numpy().copy(),
            faults=self.faults,
            fell=self._lies > 0,
            listens=assignment is not None,
        )

    def refreshed(self) -> Moment:
        """The present moment with what was changed since the last step, for a page whose clock stands still."""
        kept = {name: getattr(self.now, name) for name in ("actor", "probability", "alarm", "levels")}
        if self._fresh.all() or self.now.controller != self.controller:
            kept = {}
        self.now = self._look(None)._replace(**kept)
        return self.now

    def _note(self, kind: NoteKind, text: str, time: float | None = None) -> None:
        self.notes.append(Note(self.time if time is None else time, kind, text))

    def break_joint(self, joint: str, kind: Any = "torque_loss", severity: float = 1.0) -> None:
        """From the next control step on; it takes the place of what the joint had.

        KoboshiError where there is no such joint or kind, or the kind cannot act on the joint.
        """
        fault = Fault(joint, kind, severity)
        check_fault(self.robot, joint, kind)
        self._check_stands()
        self.env.faults.put(self._everyone, self.robot.joint_id(joint), fault, self.env.episode_step)
        self.faults = {**self.faults, joint: fault}
        self._onsets[joint] = self.time
        severity_text = "" if severity == 1 else f" {severity:.2f}"
        self._note("fault", f"{joint}: {kind.replace('_', ' ')}{severity_text}")

    def heal(self, joint: str | None = None) -> None:
        """One joint, or all that are broken; a joint that is well stays so."""
        if joint is not None:
            self.robot.joint_id(joint)
        self._check_stands()
        healed = [name for name in self.faults if joint in (None, name)]
        for name in healed:
            self.env.faults.put(self._everyone, self.robot.joint_id(name), None, self.env.episode_step)
            del self._onsets[name]
            self._note("healed", f"{name} healed")
        self.faults = {name: fault for name, fault in self.faults.items() if name not in healed}

    def set_command(self, *command: float) -> None:
        """v_x, v_y (m/s), yaw rate (rad/s); KoboshiError outside of what the policy has learnt to follow."""
        for (axis, unit), value, (low, high) in zip(AXES.items(), command, self.command_ranges, strict=True):
            if not low <= value <= high:
                raise KoboshiError(f"command: {axis} is from {low:g} to {high:g} {unit}, not {value:g}")
        self.command = tuple(command)
        self.env.command.fix(self._everyone, torch.tensor([command]))
        if self._heading is not None:
            self.env.command.hold(self._everyone, self._heading)

    def hold_heading(self, hold: bool) -> None:
        """Whether the yaw rate follows from the heading that the robot has now, or after its next reset, which is then
        kept, in place of the command's."""
        self._heading = self.env.state.heading.clone() if hold else None
        self.set_command(*self.command)

    def shove(self, forward: float, left: float) -> None:
        """Changes the base's velocity by so much along its heading and across it, m/s."""
        if not max(abs(forward), abs(left)) <= SHOVE:
            raise KoboshiError(f"a shove is up to {SHOVE:g} m/s in each direction, not {forward:g} and {left:g}")
        self._check_stands()
        heading = float(self.env.state.heading[0])
        c, s = math.cos(heading), math.sin(heading)
        change = torch.tensor([[c * forward - s * left, s * forward + c * left, 0.0]])
        velocity = self.env.qvel[:, self.env.joints.base_lin_vel]
        self.env.place(self._everyone, "base_lin_vel", velocity + change.to(velocity.dtype))
        self._note("shove", f"shoved at {math.hypot(forward, left):.1f} m/s")

    def place(self, level: int, kind: str) -> None:
        """A whole robot in the middle of a cell of the ground; KoboshiError where there is no such cell."""
        self.env.scene.levels.stand_on(kind, level)
        self.cell = (level, kind)
        self._stand_up()
        self.now = self.now._replace(actor=NOBODY)
        self._note("reset", f"on {kind.replace('_', ' ')}, level {level}")

    def set_world(self, name: str, value: float) -> None:
        """One of `quantities`; KoboshiError outside its range."""
        if name not in self.quantities:
            raise unknown("quantity of the world", name, self.quantities, "quantities")
        quantity = self.quantities[name]
        if not quantity.low <= value <= quantity.high:
            limits = f"{quantity.low:g} to {quantity.high:g} {quantity.unit}".rstrip()
            raise KoboshiError(f"{quantity.about} is from {limits}, not {value:g}")
        self.world[name] = value
        quantity.apply(self.env, self._everyone, value)
        self.env.fields.settle(self._everyone)

    def choose(self, controller: str) -> None:
        """Another of `drivers` takes over as the robot walks; it has heard nothing yet."""
        if controller not in self.drivers:
            raise unknown("controller", controller, self.drivers)
        self.controller = controller
        self._state = self.drivers[controller].controller.initial_state(1)
        self._fresh = self._everyone.clone()
        self._note("controller", f"controller: {controller}")

    def _check_stands(self) -> None:
        """What a lying robot is given would be gone when it stands up."""
        if self._lies:
            seconds = self._lies * self.env.step_dt
            raise KoboshiError(f"the robot lies on the ground; in {seconds:.1f} s it stands up whole")

    def reset(self) -> None:
        """A whole robot in its default pose at the origin."""
        self._stand_up()
        self.now = self.now._replace(actor=NOBODY)
        self._note("reset", "a whole robot")

    def _stand_up(self) -> None:
        self.faults = {}
        self._onsets.clear()
        self._lies = 0
        self.env.reset(self._seed + self._steps)
        for name, value in self.world.items():
            self.set_world(name, value)
        self.hold_heading(self._heading is not None)
        # What the reset showed was another command's.
        self._obs = self.env.observations.compute(fresh=self._everyone)
        self._fresh = self._everyone.clone()
        self._state = self.drivers[self.controller].controller.initial_state(1)


def _actor(route: Route | None, assignment: Assignment | None) -> str:
    if route is None:
        return NOBODY
    member = int(route.member[0])
    if member < 0 or assignment is None:
        return HEALTHY
    mirrored = ", mirrored" if bool(route.mirrored[0]) else ""
    return f"{assignment.members[member].name} specialist{mirrored}"


def _quantities(env: Env) -> dict[str, Quantity]:
    """What can be set of this world; its fields are prepared, as must be before the first step."""
    for event in (events.randomise_friction, events.randomise_mass, events.randomise_gains):
        for field, derives in event.randomises:  # type: ignore[attr-defined]
            env.fields.expand(field, derives)
    # Of a contact's two frictions the larger one counts.
    friction = float(env.model.geom_friction[:, 0].max())
    most = float(f"{0.3 * env.robot_mass:.1g}")
    return {
        "friction": Quantity("sliding friction", "", friction, 0.05, max(1.5, friction), _set_friction),
        "payload": Quantity("payload on the base", "kg", 0.0, 0.0, most, _set_payload),
        "gains": Quantity("factor on the drives' stiffness and damping", "", 1.0, 0.5, 1.5, _set_gains),
    }


def _set_friction(env: Env, mask: Tensor, value: float) -> None:
    events.randomise_friction(env, mask, range=(value, value))


def _set_payload(env: Env, mask: Tensor, value: float) -> None:
    events.randomise_mass(env, mask, add=(value, value))


def _set_gains(env: Env, mask: Tensor, value: float) -> None:
    events.randomise_gains(env, mask, stiffness=(value, value), damping=(value, value))
