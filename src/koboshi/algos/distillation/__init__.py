"""A student learns to act as a teacher does (DAgger)."""

from koboshi.algos.distillation.cfg import DistillationCfg
from koboshi.algos.distillation.distillation import Distillation

__all__ = ["Distillation", "DistillationCfg"]
