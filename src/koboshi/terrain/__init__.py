"""What robots stand on."""

from koboshi.terrain.grid import Grid, GridCfg
from koboshi.terrain.ground import Ground
from koboshi.terrain.plane import Plane, PlaneCfg
from koboshi.terrain.windows import Windows

AnyGroundCfg = PlaneCfg | GridCfg

__all__ = ["AnyGroundCfg", "Grid", "GridCfg", "Ground", "Plane", "PlaneCfg", "Windows"]
