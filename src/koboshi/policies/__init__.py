"""Policies: networks that act, their normalisers and their values."""

from koboshi.nets.actors import FrameStackCfg, GruCfg, MlpCfg
from koboshi.policies.actor_critic import ActorCritic, BlockPolicy, NetworkCfg, flatten_obs

__all__ = ["ActorCritic", "BlockPolicy", "FrameStackCfg", "GruCfg", "MlpCfg", "NetworkCfg", "flatten_obs"]
