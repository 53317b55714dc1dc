"""PPO on Gymnasium's classic control: `python examples/gymnasium_classic.py CartPole-v1`.

Needs gymnasium (`pip install 'koboshi[gym]'`). Prints the return of each iteration's episodes and, at the end,
the mean return of 100 episodes under the policy without noise.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from koboshi.adapters.from_gymnasium import GymnasiumVecEnv
from koboshi.algos.ppo import PPO, ActorCritic, MlpCfg, NetworkCfg, PPOCfg, TrainerCfg
from koboshi.errors import unknown

CARTPOLE = PPOCfg(
    trainer=TrainerCfg(timesteps=64 * 40, rollout=64),
    network=NetworkCfg(MlpCfg(hidden=(64, 64)), critic_hidden=(64, 64)),
    epochs=8,
    learning_rate=1e-3,
    learning_rate_range=(1e-4, 3e-3),
    desired_kl=0.02,
    entropy_coef=0.0,
)
PENDULUM = PPOCfg(
    # Its episodes last 200 steps and run in step: a shorter rollout would see one phase of them at a time.
    trainer=TrainerCfg(timesteps=200 * 60, rollout=200),
    network=NetworkCfg(MlpCfg(hidden=(64, 64)), critic_hidden=(64, 64), init_log_std=0.0),
    epochs=8,
    gamma=0.95,
    learning_rate=1e-3,
    learning_rate_range=(1e-4, 3e-3),
    desired_kl=0.02,
    entropy_coef=0.0,
)
TASKS: dict[str, tuple[int, PPOCfg]] = {"CartPole-v1": (16, CARTPOLE), "Pendulum-v1": (16, PENDULUM)}
"""Name -> (environments, settings)."""


def train(name: str, seed: int = 1, verbose: bool = False) -> ActorCritic:
    """The policy after the task's number of steps."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    num_envs, cfg = TASKS[name]
    env = GymnasiumVecEnv.make(name, num_envs, scale_actions=name == "Pendulum-v1")
    ppo = PPO(env, replace(cfg, trainer=replace(cfg.trainer, seed=seed)))
    for i in range(cfg.trainer.iterations):
        log = ppo.iterate()
        if verbose and "episode/return" in log:
            print(f"iteration {i + 1:3d}  return {log['episode/return']:8.1f}  KL {log['loss/kl']:.4f}", flush=True)
    env.close()
    return ppo.policy


def evaluate(policy: ActorCritic, name: str, episodes: int = 100, seed: int = 1000) -> float:
    """Mean return of the first episode of each of `episodes` environments, without noise."""
    env = GymnasiumVecEnv.make(name, episodes, scale_actions=name == "Pendulum-v1")
    obs = env.reset(seed)
    player = policy.single()
    state, reset = player.initial_state(episodes, env.device), torch.ones(episodes, dtype=torch.bool)
    total, going = torch.zeros(episodes), torch.ones(episodes, dtype=torch.bool)
    while going.any():
        action, state = player.act(obs, state, reset)
        step = env.step(action)
        total += step.reward * going
        obs, reset = step.obs, step.terminated | step.truncated
        going &= ~reset
    env.close()
    return total.mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    start = time.perf_counter()
    policy = train(arguments.task, arguments.seed, verbose=True)
    seconds = time.perf_counter() - start
    print(f"{arguments.task}: mean return {evaluate(policy, arguments.task):.1f} after {seconds:.0f} s of training")


if __name__ == "__main__":
    main()
