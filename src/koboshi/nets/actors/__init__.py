"""Actors, one file each; settings choose one by name, as in `agent.network.actor.type=HimCfg`."""

from koboshi.nets.actors.base import Actor, ActorCfg
from koboshi.nets.actors.dreamwaq import DreamWaqCfg
from koboshi.nets.actors.est import EstCfg
from koboshi.nets.actors.estimator import Estimator
from koboshi.nets.actors.frame_stack import FrameStackCfg
from koboshi.nets.actors.gru import GruCfg
from koboshi.nets.actors.him import HimCfg
from koboshi.nets.actors.mlp import Mlp, MlpCfg
from koboshi.nets.actors.rma import RmaCfg

AnyActorCfg = MlpCfg | FrameStackCfg | GruCfg | EstCfg | HimCfg | DreamWaqCfg | RmaCfg

__all__ = [
    "Actor",
    "ActorCfg",
    "AnyActorCfg",
    "DreamWaqCfg",
    "EstCfg",
    "Estimator",
    "FrameStackCfg",
    "GruCfg",
    "HimCfg",
    "Mlp",
    "MlpCfg",
    "RmaCfg",
]
