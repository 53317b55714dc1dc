"""An exported controller: senses in, joint targets out, and what it carries from step to step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from koboshi.deploy.contract import FILE, PROGRAM, check_program, load_contract
from koboshi.deploy.senses import Array, Observer, Senses
from koboshi.errors import KoboshiError

HEALTHY = -1


class Told(NamedTuple):
    """What a step decided."""

    targets: Array
    """(J,) of the actuators, in their units, in the contract's order of joints."""
    member: int
    """Who acts: a specialist's index, or −1, the healthy policy."""
    probability: Array
    """(J,) that each joint is broken."""


class Program:
    """Steps the ONNX file of an export. One robot."""

    def __init__(self, folder: Path) -> None:
        """KoboshiError where the folder is not whole, or program and contract are not of one export."""
        try:
            import onnxruntime
        except ImportError as error:
            raise KoboshiError("ONNX Runtime is not installed: pip install 'koboshi[export]'") from error
        self.contract = load_contract(folder)
        path = folder / PROGRAM
        if not path.is_file():
            raise KoboshiError(f"{folder} has a {FILE} but no {PROGRAM}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # waking others would cost more than they do
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, which are not public
            raise KoboshiError(f"{path} is damaged: {error}") from error
        check_program(self.contract, self._session.get_modelmeta().custom_metadata_map, path)
        action = self.contract["action"]
        self._offset, self._scale = np.array(action["offset"]), np.array(action["scale"])
        self._low, self._high = np.array(action["low"]), np.array(action["high"])
        self._joints = np.array(action["joints"])
        self._default = np.array(self.contract["default_joint_pos"])
        self._observer = Observer(self.contract["observations"], self._default)
        self.reset()

    def reset(self) -> None:
        """The next step is the first of an episode."""
        self._observer.reset()
        self.action: Array = np.zeros(len(self._joints))
        self._carried = [np.zeros(shape, dtype=kind) for shape, kind in self.contract["carried"]]
        for name, value in self.contract["initial"].items():
            self._carried[int(name)][:] = value
        self._first = True

    def step(self, senses: Senses) -> Told:
        """One control step. KoboshiError, before anything is remembered, for senses of another robot or no numbers."""
        joints = len(self._default)
        for name, value in senses._asdict().items():
            size = joints if name.startswith("joint") else 3
            if np.shape(value) != (size,) or not np.isfinite(value).all():
                raise KoboshiError(f"senses: {name} is {size} finite numbers, not {value}")
        told = self.decide(self._observer.observe(senses, self.action))
        targets = self._default.copy()
        targets[self._joints] = self._offset + self._scale * self.action
        return Told(targets, *told)

    def decide(self, obs: dict[str, NDArray[np.float32]]) -> tuple[int, Array]:
        """Who acts and the joints' probabilities; `action` is then the new one, within its bounds."""
        feed: dict[str, Any] = {name: obs[name] for name in self.contract["inputs"]}
        feed["reset"] = np.array([self._first])
        feed |= {f"carried.{i}": x for i, x in enumerate(self._carried)}
        # What a program has no use for (the memory of one without any) is not among its inputs.
        feed = {each.name: feed[each.name] for each in self._session.get_inputs()}
        action, member, probability, *self._carried = self._session.run(None, feed)
        if not np.isfinite(action).all():
            raise KoboshiError("the program gave actions that are not finite")
        self.action = action[0].astype(np.float64).clip(self._low, self._high)
        self._first = False
        return int(member[0]), probability[0]
