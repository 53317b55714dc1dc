"""Pictures of what happened: trajectories, videos, plots. Everything else works without it."""

from koboshi.view.trajectory import AlarmMark, FaultMark, Trajectory

__all__ = ["AlarmMark", "FaultMark", "Trajectory"]
