"""Detector files: weights, what they listen to, and the alarm settings they were calibrated with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from koboshi.detect.alarms import AlarmCfg
from koboshi.detect.base import Detector
from koboshi.detect.build import build_detector, cfg_from_dict, cfg_to_dict, weights_of
from koboshi.detect.spec import DetectorSpec
from koboshi.errors import KoboshiError
from koboshi.runs import check_shapes, load_checkpoint, save_checkpoint


def save_detector(path: str | Path, model: Detector, alarm: AlarmCfg, meta: dict[str, Any] | None = None) -> None:
    """Writes a safetensors file; `meta` (JSON data) is kept beside what `load_detector` needs."""
    needed = {
        "kind": "detector",
        "robot": model.spec.robot,
        "layout_hash": model.spec.layout_hash,
        "spec": model.spec.to_dict(),
        "cfg": cfg_to_dict(model.cfg),
        "alarm": asdict(alarm),
    }
    save_checkpoint(path, model.state_dict(), {**(meta or {}), **needed})


def load_detector(
    path: str | Path,
    expect_robot: str | None = None,
    expect_layout: str | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Detector, AlarmCfg, dict[str, Any]]:
    """The detector in eval mode on the device, its alarm settings and meta.

    KoboshiError where the file is damaged or of another robot or observation layout.
    """
    wanted = {"kind": "detector", "robot": expect_robot, "layout_hash": expect_layout}
    tensors, meta = load_checkpoint(path, expect={k: v for k, v in wanted.items() if v is not None})
    try:
        model = build_detector(DetectorSpec.from_dict(meta["spec"]), cfg_from_dict(meta["cfg"]))
        alarm = AlarmCfg(**meta["alarm"])
    except (KeyError, TypeError, ValueError) as error:
        raise KoboshiError(f"detector {path} was written by another version of koboshi: {error}") from error
    tensors = weights_of(tensors)
    check_shapes(tensors, model.state_dict(), f"the detector of {path}")
    model.load_state_dict(tensors)
    return model.eval().to(device), alarm, meta
