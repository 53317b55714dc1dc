"""`deploy.yaml`: what an exported program needs to know of its robot, and what must not be otherwise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from koboshi.errors import KoboshiError

FILE, PROGRAM, MODEL = "deploy.yaml", "policy.onnx", "robot.xml"
FORMAT = 2
PARTS = (
    "robot", "joints", "default_joint_pos", "targets", "actuators", "base_height", "fall_height", "control_dt",
    "physics_dt", "delay_s", "action", "observations", "commands", "inputs", "carried", "initial", "faults", "model",
    "made",
)  # fmt: skip
"""What the program was made for and from; each part's fingerprint lies in the program itself. `model` is that of
`robot.xml`."""

Contract = dict[str, Any]


def fingerprint(part: object) -> str:
    """sha256 of JSON data, its first 16 digits."""
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def fingerprints(contract: Contract) -> dict[str, str]:
    """`koboshi.<part>` -> its fingerprint."""
    return {f"koboshi.{part}": fingerprint(contract[part]) for part in PARTS}


def load_contract(folder: Path) -> Contract:
    """KoboshiError where the folder holds no contract of this format."""
    path = folder / FILE
    if not path.is_file():
        raise KoboshiError(f"{folder} is no exported controller: it has no {FILE}")
    try:
        contract = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise KoboshiError(f"{path} is damaged: {error}") from error
    if not isinstance(contract, dict) or contract.get("format") != FORMAT:
        found = contract.get("format") if isinstance(contract, dict) else None
        raise KoboshiError(f"{path} has format {found}, not {FORMAT}")
    missing = [part for part in PARTS if part not in contract]
    if missing:
        raise KoboshiError(f"{path} lacks {', '.join(missing)}")
    return contract


def check_program(contract: Contract, metadata: Mapping[str, str], path: Path) -> None:
    """KoboshiError naming the part in which contract and program are not of one export."""
    differ = [name.partition(".")[2] for name, mine in fingerprints(contract).items() if metadata.get(name) != mine]
    if differ:
        raise KoboshiError(f"{path} was exported with other {', '.join(differ)} than {FILE} says; export it again")


def check_model(contract: Contract, xml: str, path: Path) -> None:
    """KoboshiError where the robot's model is not the one that was exported."""
    if fingerprint(xml) != contract["model"]:
        raise KoboshiError(f"{path} is not the robot that {FILE} was exported with; export it again")


def check_robot(contract: Contract, joint_names: Sequence[str], control_dt: float) -> None:
    """KoboshiError where a robot's joints or the loop's period are not those that the program was made for."""
    if list(joint_names) != contract["joints"]:
        raise KoboshiError(
            f"joints in the order {', '.join(joint_names)}; the program's: {', '.join(contract['joints'])}"
        )
    if abs(control_dt - contract["control_dt"]) > 1e-6:
        asked, made = 1 / control_dt, 1 / contract["control_dt"]
        raise KoboshiError(f"a loop of {asked:g} Hz; the program was trained at {made:g} Hz, and at no other rate")
