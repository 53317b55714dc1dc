from dataclasses import dataclass


@dataclass(frozen=True)
class DistillationCfg:
    teacher: str = ""
