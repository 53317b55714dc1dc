"""What one process of `test_ranks.py` does: writes the policies it has learnt into the folder it is given."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from toy_env import PointEnv, SpaceEnv, columns, random_rollout, small_cfg

from koboshi.algos.ppo import PPO, Rollout
from koboshi.nets.distributed import init_from_environment
from koboshi.runs import save_checkpoint

MEMBERS, PER_MEMBER = 2, 6


def rollouts(masked: bool) -> list[Rollout]:
    """Two of 2 members with 6 environments; masked: all is valid in the second half of each member's."""
    out = [random_rollout(MEMBERS * PER_MEMBER, seed) for seed in (1, 2)]
    for rollout in out if masked else []:
        rollout.valid[:5, 0:2] = False
        rollout.valid[:, 6:9] = False
    return out


def halves(rank: int) -> torch.Tensor:
    """Each member's first or second half of environments."""
    half = PER_MEMBER // 2
    return torch.arange(MEMBERS * PER_MEMBER).view(MEMBERS, 2, half)[:, rank].flatten()


def learn(rank: int, world: int, masked: bool) -> dict[str, torch.Tensor]:
    # One minibatch: how each process shuffles does not matter, and a mean of gradients is that of the union.
    ppo = PPO(SpaceEnv(MEMBERS * PER_MEMBER // world), small_cfg(minibatches=1), MEMBERS, rank=rank)
    for rollout in rollouts(masked):
        ppo.update(columns(rollout, halves(rank)) if world > 1 else rollout)
    return {f"{masked}.{name}": value for name, value in ppo.policy.state_dict().items()}


def own(ppo: PPO) -> dict[str, torch.Tensor]:
    """What a process must have to itself: where its environments start, and its noise in the first step."""
    rollout = ppo.collect()
    start = rollout.obs["policy"][0].clone()
    mean = ppo.policy.single().act({"policy": start}, (), torch.ones(8, dtype=torch.bool))[0]
    return {"own.start": start, "own.noise": rollout.action[0] - mean}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank, world = init_from_environment()
    state = learn(rank, world, masked=False) | learn(rank, world, masked=True)
    ppo = PPO(PointEnv(8), small_cfg(), rank=rank)
    state |= {f"first.{name}": value.clone() for name, value in ppo.policy.state_dict().items()}
    state |= own(ppo)
    for _ in range(2):
        ppo.iterate()
    state |= {f"live.{name}": value for name, value in ppo.policy.state_dict().items()}
    save_checkpoint(folder / f"rank{rank}.safetensors", state, {})
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
