"""Faults: which there are, who breaks when, frozen scenarios, and how they act on physics and senses."""

from koboshi.faults.cfg import NEVER, Fault, FaultsCfg, FaultSchedule, FaultsOnDemand
from koboshi.faults.kinds import KINDS, Kind, can_have, check_fault, check_kind
from koboshi.faults.layer import FaultLayer
from koboshi.faults.scenarios import CommandRanges, Scenario, Scenarios, sweep

__all__ = [
    "KINDS",
    "NEVER",
    "CommandRanges",
    "Fault",
    "FaultLayer",
    "FaultSchedule",
    "FaultsCfg",
    "FaultsOnDemand",
    "Kind",
    "Scenario",
    "Scenarios",
    "can_have",
    "check_fault",
    "check_kind",
    "sweep",
]
