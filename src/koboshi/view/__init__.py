"""Pictures of what happened: trajectories, videos, plots. Everything else works without it."""

from koboshi.view.trajectory import FaultMark, Trajectory

__all__ = ["FaultMark", "Trajectory"]
