"""What one process of `test_ranks.py` does: trains on a toy data set and writes what it has learnt."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from walker import simulate

from koboshi.detect import DetectorCfg, DetectorTrainCfg, train_detector
from koboshi.nets.distributed import init_from_environment
from koboshi.runs import load_checkpoint, save_checkpoint


def learn(folder: Path) -> dict[str, torch.Tensor]:
    """Weights after a short training that is killed once and resumed, and the last state that was stored."""
    # Batches of 3 of 5 lanes: shares of one or two lanes, and sometimes none.
    data, cfg = simulate(120, 5, seed=3), DetectorTrainCfg(epochs=3, batch_envs=3, chunk=20)
    small, checkpoint = DetectorCfg(embed=8, hidden=8, evidence=4), folder / "training.safetensors"

    def kill(iteration: int, *_: object) -> None:
        if iteration == 12:
            raise InterruptedError

    try:
        train_detector([data], small, cfg, report=kill, checkpoint=checkpoint, save_every=5)
    except InterruptedError:
        model = train_detector([data], small, cfg, checkpoint=checkpoint, save_every=5)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first process writes the file that all read
    return model.state_dict() | {f"last.{n}": v for n, v in load_checkpoint(checkpoint)[0].items()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank, _ = init_from_environment()
    state = learn(folder)
    save_checkpoint(folder / f"rank{rank}.safetensors", state, {})
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
