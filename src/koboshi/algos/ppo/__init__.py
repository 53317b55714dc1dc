"""Proximal policy optimisation over a stack of policies."""

from koboshi.algos.learner import TrainerCfg
from koboshi.algos.ppo.cfg import PPOCfg
from koboshi.algos.ppo.ppo import PPO
from koboshi.algos.ppo.rollout import Rollout
from koboshi.policies import ActorCritic, FrameStackCfg, GruCfg, MlpCfg, NetworkCfg
from koboshi.vec_env import MirrorMap

__all__ = [
    "PPO",
    "ActorCritic",
    "FrameStackCfg",
    "GruCfg",
    "MirrorMap",
    "MlpCfg",
    "NetworkCfg",
    "PPOCfg",
    "Rollout",
    "TrainerCfg",
]
