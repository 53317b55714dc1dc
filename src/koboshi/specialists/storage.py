"""Whole controllers as files: safetensors with everything needed to check them before use."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from koboshi.detect import Detector, DetectorSpec, build_detector, cfg_from_dict, cfg_to_dict, weights_of
from koboshi.detect.alarms import AlarmCfg
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.policies.actor_critic import ActorCritic
from koboshi.policies.storage import build_policy, check_layouts, layout_of, tensors_under
from koboshi.runs import check_shapes, load_checkpoint, save_checkpoint
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import DetectorRouter, Router
from koboshi.specialists.switching import SwitchCfg


def save_controller(
    path: Path,
    meta: dict[str, Any],
    healthy: ActorCritic,
    bank: ActorCritic,
    assignment: Assignment,
    detector: Detector,
    alarm: AlarmCfg,
    switch: SwitchCfg,
) -> None:
    """The whole controller as one file; `meta` is the healthy policy's `policy_meta`, and has the bank's too."""
    parts = {"healthy": healthy, "bank": bank, "detector": detector}
    tensors = {f"{p}.{n}": v for p, module in parts.items() for n, v in module.state_dict().items()}
    extra = {
        "kind": "controller",
        "assignment": asdict(assignment),
        "detector_spec": detector.spec.to_dict(),
        "detector_cfg": cfg_to_dict(detector.cfg),
        "alarm": asdict(alarm),
        "switch": asdict(switch),
    }
    save_checkpoint(path, tensors, meta | extra)


def save_switch(path: Path, target: Path, alarm: AlarmCfg, switch: SwitchCfg) -> None:
    """Writes the controller of `path` with other settings of alarms and switch to `target`."""
    tensors, meta = load_checkpoint(path, expect={"kind": "controller"})
    save_checkpoint(target, tensors, meta | {"alarm": asdict(alarm), "switch": asdict(switch)})


def load_healthy(path: Path) -> tuple[ActorCritic, dict[str, Any]]:
    """The healthy policy of a controller's file, a stack of one, and what the file says; nothing else is built."""
    tensors, meta = load_checkpoint(path, expect={"kind": "controller"})
    return build_policy(tensors, meta, 1, "healthy", path), meta


class StoredController:
    """A controller file's parts, to be put together with any router."""

    def __init__(self, path: Path, env: Env, device: torch.device | str | None = None) -> None:
        """All parts lie on `device`, by default the environment's.

        KoboshiError where the file is not a controller, is damaged, or was made for something else than `env`.
        """
        device = torch.device(device) if device is not None else env.device
        tensors, self.meta = load_checkpoint(path, expect={"kind": "controller"})
        check_layouts(self.meta, env, path)
        self.robot = env.robot
        self.assignment, self.alarm, self.switch, self.detector = _described(self.meta, path)
        _check_senses(self.detector.spec, env, path)
        self.healthy = build_policy(tensors, self.meta, 1, "healthy", path).to(device).single()
        # A file from before specialists could be told more than the healthy policy says the same of both.
        about = self.meta.get("bank", self.meta)
        check_layouts(about, env, path)
        policy = build_policy(tensors, about, len(self.assignment.members), "bank", path).to(device)
        mirror = env.mirror_map(policy.actor.groups) if self.assignment.uses_mirror else None
        self.bank = SpecialistBank(policy, self.assignment, mirror)
        state = weights_of(tensors_under(tensors, "detector"))
        check_shapes(state, self.detector.state_dict(), f"the detector network of {path}")
        self.detector.load_state_dict(state)
        self.detector.to(device).eval().requires_grad_(False)

    def learned(self) -> Controller:
        """The controller as it would run on a robot."""
        return self.switched(self.bank, self.alarm, self.switch)

    def switched(self, bank: SpecialistBank, alarm: AlarmCfg, switch: SwitchCfg) -> Controller:
        """The healthy policy and a bank under the detector, with settings of any kind."""
        router = DetectorRouter(self.detector, alarm, bank.assignment, self.robot, switch.dwell_steps)
        return Controller(self.healthy, bank, router, switch.blend_steps)

    def routed_by(self, router: Router) -> Controller:
        """The same policies under another router."""
        return Controller(self.healthy, self.bank, router, self.switch.blend_steps)


def _described(meta: dict[str, Any], path: Path) -> tuple[Assignment, AlarmCfg, SwitchCfg, Detector]:
    """The assignment, the settings of alarms and switch, and the (untrained) detector that a file tells of."""
    try:
        assignment = TypeAdapter(Assignment).validate_python(meta["assignment"])
        spec = DetectorSpec.from_dict(meta["detector_spec"])
        detector = build_detector(spec, cfg_from_dict(meta["detector_cfg"]))
        # A file from before the switch had settings switches at once.
        return assignment, AlarmCfg(**meta["alarm"]), SwitchCfg(**meta.get("switch", {})), detector
    except (KeyError, TypeError, ValueError) as error:
        raise KoboshiError(f"{path} was written by another version of koboshi: {error!r}") from error


def _check_senses(spec: DetectorSpec, env: Env, path: Path) -> None:
    """KoboshiError where the detector listens to other senses than the environment's."""
    whole = layout_of(env, "detector") if "detector" in env.obs_spec else []
    mine = [entry[:3] + entry[4:] for entry in whole]  # in SI units nothing follows the first four
    if [list(e) for e in spec.layout] != mine:
        theirs, ours = (", ".join(f"{n} {w}{u or ''}" for n, _, w, *u in layout) for layout in (spec.layout, mine))
        raise KoboshiError(
            f"{path} was made for another layout of observation group 'detector': {theirs}, not {ours or '(none)'}"
        )
