"""Faults: what they do to the physics, who breaks when, the true labels, frozen scenarios."""

from koboshi.faults.scenarios import Scenario, Scenarios, joint_sweep
from koboshi.faults.schedule import KINDS, FaultSchedule
from koboshi.faults.state import FaultState

__all__ = ["KINDS", "FaultSchedule", "FaultState", "Scenario", "Scenarios", "joint_sweep"]
