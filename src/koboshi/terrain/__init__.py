"""What robots stand on."""

from koboshi.terrain.plane import Ground, Plane, PlaneCfg

__all__ = ["Ground", "Plane", "PlaneCfg"]
