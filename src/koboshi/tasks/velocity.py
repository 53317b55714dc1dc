"""What tasks of walking under velocity commands share: senses, critic, resets, terminations, specialists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import Parameter, signature
from typing import Any

from koboshi.algos.ppo import NetworkCfg, PPOCfg
from koboshi.detect import DetectorCfg
from koboshi.detect.train import DetectorTrainCfg
from koboshi.envs.cfg import (
    ActionsCfg,
    ActionTerm,
    EnvCfg,
    EventTerm,
    HeadingCfg,
    ObsGroup,
    ObsTerm,
    RewardTerm,
    TerminationTerm,
    VelocityCommandCfg,
)
from koboshi.envs.terms import actions, events, observations, rewards, terminations
from koboshi.faults import KINDS, CommandRanges, FaultsCfg, Kind
from koboshi.robots import Robot
from koboshi.specialists.training import SpecialistsCfg
from koboshi.tasks.task import SwitchStageCfg, TaskCfg, required

MOVING: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "torque_sensor_loss")
"""Kinds of fault that change how a robot moves: only these need another policy."""
TORQUE_NOISE = 0.005
"""Noise of a measured torque as a share of the joint's effort limit: currents are measured to a share of the range."""


def senses() -> dict[str, ObsTerm | None]:
    """What a real robot senses. Noise is uniform; joint velocities are those of filtered encoders."""
    return {
        "base_lin_vel": ObsTerm(observations.base_lin_vel, noise=0.1),
        "base_ang_vel": ObsTerm(observations.base_ang_vel, noise=0.1),
        "projected_gravity": ObsTerm(observations.projected_gravity, noise=0.03),
        "command": ObsTerm(observations.velocity_command),
        "joint_pos": ObsTerm(observations.joint_pos, noise=0.01),
        "joint_vel": ObsTerm(observations.joint_vel, noise=0.1),
        "last_action": ObsTerm(observations.last_action),
    }


def blind_senses() -> dict[str, ObsTerm | None]:
    """The same without the base's velocity, which no sensor shows."""
    return {name: term for name, term in senses().items() if name != "base_lin_vel"}


def privileged() -> dict[str, ObsTerm | None]:
    """The critic's clean, undelayed view, and what no sensor shows."""
    return {
        "base_lin_vel": ObsTerm(observations.base_lin_vel),
        "base_ang_vel": ObsTerm(observations.base_ang_vel),
        "projected_gravity": ObsTerm(observations.projected_gravity),
        "command": ObsTerm(observations.velocity_command),
        "joint_pos": ObsTerm(observations.joint_pos, {"sensed": False}),
        "joint_vel": ObsTerm(observations.joint_vel, {"sensed": False}),
        "last_action": ObsTerm(observations.last_action),
        "base_height": ObsTerm(observations.base_height),
        "foot_contact": ObsTerm(observations.foot_contact),
        "foot_air_time": ObsTerm(observations.foot_air_time),
    }


def walking_groups() -> dict[str, ObsGroup]:
    """What a policy and its critic see."""
    return {"policy": ObsGroup(senses()), "critic": ObsGroup(privileged(), noise=False)}


def fault_groups(robot: Robot) -> dict[str, ObsGroup]:
    """What a detector sees, the policy's very numbers and the joints' torques; the severities in force, for
    teachers; and what is believed of faults, which is the truth until a router says what it believes."""
    noise = tuple((TORQUE_NOISE * robot.effort_limit).tolist())
    return {
        "detector": ObsGroup({"joint_torque": ObsTerm(observations.joint_torque, noise=noise)}, base="policy"),
        "fault": ObsGroup({"severity": ObsTerm(observations.fault_severity)}, noise=False),
        "belief": ObsGroup({"levels": ObsTerm(observations.fault_levels)}, noise=False),
    }


def position_targets(scale: float) -> ActionsCfg:
    """Every joint's position target around the default pose, `scale` rad a unit."""
    return ActionsCfg({"joint_position": ActionTerm(actions.joint_position, scale=scale)})


def resets(velocity: float = 0.5) -> dict[str, EventTerm | None]:
    """Upright at any heading, at up to `velocity` m/s and rad/s in each direction, near the default pose."""
    base = EventTerm(events.reset_base, params={"velocity": velocity})
    return {"reset_base": base, "reset_joints": EventTerm(events.reset_joints)}


def randomisations() -> dict[str, EventTerm | None]:
    """What a simulated world may differ in from the real one; each waits for `env.events.<name>.active=true`.

    Delays are settings of their own: `env.actions.delay` and each observation's.
    """
    at_reset = {
        "friction": events.randomise_friction,
        "mass": events.randomise_mass,
        "com": events.randomise_com,
        "gains": events.randomise_gains,
        "strength": events.randomise_strength,
        "armature": events.randomise_armature,
        "joint_friction": events.randomise_joint_friction,
        "encoder_bias": events.randomise_encoder_bias,
        "force": events.external_force,
    }
    terms = {name: EventTerm(func, "reset", _ranges(func), active=False) for name, func in at_reset.items()}
    return {**terms, "push": EventTerm(events.push, "interval", _ranges(events.push), active=False)}


def _ranges(func: Callable[..., None]) -> dict[str, Any]:
    """An event's own default parameters, spelt out so that each is a key that can be set."""
    return {name: p.default for name, p in signature(func).parameters.items() if p.default is not Parameter.empty}


def falls(robot: Robot) -> dict[str, TerminationTerm | None]:
    """Time-out, a base too low above the ground, or tilted by more than 60°."""
    return {
        "time_out": TerminationTerm(terminations.time_out, time_out=True),
        "base_low": TerminationTerm(terminations.base_low, {"height": robot.fall_height}),
        "bad_orientation": TerminationTerm(terminations.bad_orientation, {"limit": 0.5}),
    }


def falls_by_contact(robot: Robot, bodies: tuple[str, ...]) -> dict[str, TerminationTerm | None]:
    """Time-out, these bodies (patterns) on the ground, or a base tilted by more than 60°: on stairs a base may be near
    the ground under it and stand well."""
    usual = {name: term for name, term in falls(robot).items() if name != "base_low"}
    return usual | {"base_contact": TerminationTerm(terminations.illegal_contact, {"bodies": bodies})}


def cell_by_cell(robot: Robot, bodies: tuple[str, ...]) -> dict[str, TerminationTerm | None]:
    """The same for a curriculum of levels: who crossed a cell goes on to a harder one."""
    return falls_by_contact(robot, bodies) | {"crossed_cell": TerminationTerm(terminations.crossed_cell, time_out=True)}


def asked(ranges: CommandRanges, **more: Any) -> VelocityCommandCfg:
    """Commands from these ranges; `more` fields of the configuration."""
    return VelocityCommandCfg(ranges.lin_vel_x, ranges.lin_vel_y, ranges.ang_vel_z, **more)


def one_command(ranges: CommandRanges, seconds: float) -> VelocityCommandCfg:
    """Headings to hold, and one velocity for an episode of `seconds`: who is told to turn back comes home, and a
    curriculum of levels would take it for one that got nowhere."""
    return asked(ranges, resampling_time_s=(seconds, seconds), heading=HeadingCfg())


def specialists_cfg(final_kl: float | None = None) -> SpecialistsCfg:
    """Few, large minibatches and a small first rate: the weights already walk.

    With `final_kl` specialists settle in the last stage: most know how to stand by then, and follow commands better.
    """
    return SpecialistsCfg(
        agent=PPOCfg(
            network=NetworkCfg(init_log_std=-0.9),
            minibatches=1,
            learning_rate=1e-4,
            entropy_coef=0.002,
            mirror_coef=0.0,
            final_kl=final_kl,
        )
    )


def in_differing_worlds(env: EnvCfg) -> EnvCfg:
    """The environment in a world that nobody has measured, drawn anew for each episode; half of the commands hold a
    heading, which a robot can see itself leave.

    No range has a value of `bench.worlds` for one of its ends, and the delays end below that of `late`.
    """
    drawn: dict[str, EventTerm | None] = {
        "friction": EventTerm(events.randomise_friction, params={"range": (0.35, 1.25)}),
        "mass": EventTerm(events.randomise_mass, params={"add": (0.0, 0.0), "of_robot": (-0.03, 0.18)}),
        "com": EventTerm(events.randomise_com, params={"shift": (-0.02, 0.02)}),
        "gains": EventTerm(
            events.randomise_gains, params={"stiffness": (0.93, 1.07), "damping": (0.93, 1.07), "shared": (0.8, 1.25)}
        ),
        "strength": EventTerm(events.randomise_strength, params={"range": (0.9, 1.0), "shared": (0.65, 1.0)}),
        "joint_friction": EventTerm(
            events.randomise_joint_friction, params={"add": (0.0, 0.0), "of_effort": (0.0, 0.02)}
        ),
        "push": EventTerm(events.push, "interval", {"velocity": 0.8}, interval_s=(2.0, 6.0)),
    }
    # Loads and weak motors slow a robot down by less than the usual reward minds.
    closely = RewardTerm(rewards.lin_vel_xy_error, 0.5, shape="exp", scale=0.2)
    return replace(
        env,
        rewards=env.rewards | {"track_lin_vel_xy_closely": closely},
        actions=replace(env.actions, delay=(0, 2)),
        command=replace(env.command, heading=HeadingCfg(stiffness=1.0, fraction=0.5)),
        events=env.events | drawn,
    )


def under_any_faults(task: TaskCfg) -> TaskCfg:
    """The task under every kind of fault, from a quarter on and half of them whole, up to three joints at once, in
    half of such episodes all in the same way; some heal. It is evaluated with one joint at a time, for good, while a
    heading is held."""
    faults = FaultsCfg(
        kinds=tuple(KINDS),
        severity=(0.25, 1.0),
        whole=0.5,
        count=(1, 3),
        alike=0.5,
        hold_out=True,
        duration_s=(2.0, 30.0),
    )
    specialists = required(task, "specialists", task.specialists)
    return replace(
        task,
        faults=faults,
        # Many episodes are healthy: alarms that come once in hours are not seen in minutes.
        collect=replace(
            required(task, "collect", task.collect),
            steps=1800,
            calibrate_fraction=0.2,
            probability=0.8,
            episode_length_s=10.0,
            # Of robots that hardly ever stood in training detectors raised most of their false alarms.
            standing_fraction=0.1,
        ),
        detector=replace(
            required(task, "detector", task.detector),
            network=DetectorCfg(embed=64, hidden=64, joint=32),
            # Four times the updates of batches of 128, from fewer rows, notice more.
            training=DetectorTrainCfg(epochs=3.0, batch_envs=32),
            false_alarms_per_hour=0.2,
        ),
        specialists=replace(
            specialists,
            agent=replace(specialists.agent, mirror_coef=0.5, desired_kl=0.02),
            sharing="one",
            informed=True,
            kinds=MOVING,
            # One member learns from all environments: fewer of them, and more updates from as many samples.
            num_envs=512,
            stages=(19400,),
            minibatch_size=3072,
            whole=0.8,
            # Of several dead joints robots fall most, and chance makes few of them.
            dead=0.4,
            # What a detector cannot see soon it notices late.
            switch_delay_s=(0.0, 0.3),
            focus=0.75,
            detector_share=0.25,
        ),
        switch=SwitchStageCfg(healthy_hours=10.0),
        # Other delays of the oracle, and more hours, are the benchmark's.
        evaluate=replace(
            task.evaluate,
            single=True,
            commands=CommandRanges(heading=(0.0, 0.0)),
            oracle_delays_s=(0.2,),
            healthy_hours=3.0,
        ),
    )
