"""Batched environments made of functional terms."""

from koboshi.envs.cfg import EnvCfg
from koboshi.envs.env import Env

__all__ = ["Env", "EnvCfg"]
