"""Proximal policy optimisation over a stack of policies."""

from koboshi.algos.ppo.cfg import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.algos.ppo.policy import ActorCritic
from koboshi.algos.ppo.ppo import PPO, MirrorMap

__all__ = ["PPO", "ActorCritic", "MirrorMap", "NetworkCfg", "PPOCfg", "TrainerCfg"]
