"""The detectors that there are, by their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from koboshi.detect.base import Detector
from koboshi.detect.cusum import CusumCfg, ResidualCusum
from koboshi.detect.model import DetectorCfg, FaultDetector
from koboshi.detect.spec import DetectorSpec

AnyDetectorCfg = DetectorCfg | CusumCfg
"""A network that learns, or a test that does not; `detector.network.type=CusumCfg` chooses another."""


def build_detector(spec: DetectorSpec, cfg: AnyDetectorCfg | None = None) -> Detector:
    """An untrained one."""
    return ResidualCusum(spec, cfg) if isinstance(cfg, CusumCfg) else FaultDetector(spec, cfg)


def weights_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A detector file's weights; in older ones the memory was always a GRU, and was called one."""
    return {f"memory.cell.{n[4:]}" if n.startswith("gru.") else n: value for n, value in tensors.items()}


def cfg_to_dict(cfg: AnyDetectorCfg) -> dict[str, Any]:
    """As JSON data, with the class's name."""
    return {"type": type(cfg).__name__, **asdict(cfg)}


def cfg_from_dict(raw: dict[str, Any]) -> AnyDetectorCfg:
    """The inverse; a file without a type is a network's."""
    values = {name: value for name, value in raw.items() if name != "type"}
    return CusumCfg(**values) if raw.get("type") == CusumCfg.__name__ else DetectorCfg(**values)
