"""Training the detector on whole sequences, the hidden state carried and zeroed at resets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from koboshi.data import Sequences, find_episodes, find_faults
from koboshi.detect.model import DetectorCfg, DetectorSpec, FaultDetector
from koboshi.errors import KoboshiError
from koboshi.runs import check_shapes, load_checkpoint, save_checkpoint

Report = Callable[[int, int, dict[str, float]], None]
"""Called with (iteration, iterations in all, figures)."""


@dataclass(frozen=True)
class DetectorTrainCfg:
    """How a detector is trained."""

    epochs: float = 12.0
    """Passes over the rows."""
    batch_envs: int = 256
    """Environments a batch."""
    chunk: int = 50
    """Steps of truncated backpropagation through time."""
    learning_rate: float = 3e-3
    """After a short warm-up; falls to 0 along a cosine."""
    weight_decay: float = 1e-4
    grad_clip: float = 1.0
    onset_window_s: float = 0.5
    """Rows this long after an onset weigh `onset_weight`, later faulty rows `late_weight`, healthy rows 1."""
    onset_weight: float = 3.0
    late_weight: float = 0.3
    min_severity: float = 0.0
    """A joint with a severity above 0 but not above this is neither faulty nor healthy: it does not count."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_envs", "chunk", "learning_rate", "grad_clip"):
            if getattr(self, name) <= 0:
                raise KoboshiError(f"detector {name} is {getattr(self, name)}, must be above 0")


class Mirror(NamedTuple):
    """Left and right exchanged: mirrored obs = sign * obs[..., obs_ids]; joint j reads from joint_ids[j]."""

    obs_ids: Tensor
    """(D,) int64."""
    obs_sign: Tensor
    """(D,) float."""
    joint_ids: Tensor
    """(J,) int64."""


class DetectorTrainer:
    """Trains `model` in place; stopped anywhere, it goes on from its `state_dict` with the same numbers.

    Every environment (and its mirror image, where a mirror is given) is a lane with its own place in time
    and hidden state. An iteration moves one batch of lanes on by one chunk; after the last row a lane starts
    over. Lanes begin at random places, so that a batch sees all parts of an episode.
    """

    def __init__(
        self,
        model: FaultDetector,
        sequences: list[Sequences],
        cfg: DetectorTrainCfg | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.model, self.sequences, self.cfg, self.mirror = (
            model,
            sequences,
            cfg or DetectorTrainCfg(),
            mirror,
        )
        self.weights = [row_weights(seq, self.cfg) for seq in sequences]
        if not any(bool(w.any()) for w in self.weights):
            raise KoboshiError("no training rows: every episode is a test episode")
        self.candidates = torch.tensor(model.spec.candidate_ids)
        flips = (False, True) if mirror else (False,)
        self.lanes = [(s, flip, n) for s, seq in enumerate(sequences) for flip in flips for n in range(seq.num_envs)]
        rows = sum(seq.reset.numel() for seq in sequences)
        self.iterations = max(1, math.ceil(self.cfg.epochs * rows / (self.cfg.batch_envs * self.cfg.chunk)))
        self.iteration = 0
        steps = torch.tensor([sequences[s].num_steps for s, _, _ in self.lanes])
        self.position = (torch.rand(len(self.lanes), generator=self._generator(-1)) * steps).long()
        self.hidden = model.initial(len(self.lanes))
        decayed = [p for p in model.parameters() if p.ndim > 1]
        biases = [p for p in model.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": biases, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=self.cfg.weight_decay)
        self._round = -1
        self._batches: list[Tensor] = []

    def run(self, until: int | None = None, report: Report | None = None) -> None:
        """Trains up to iteration `until` (default: all)."""
        self.model.train()
        end = self.iterations if until is None else min(until, self.iterations)
        while self.iteration < end:
            rate = self._learning_rate()
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = self._update(self._next_lanes())
            self.iteration += 1
            if report is not None:
                report(self.iteration, self.iterations, {"loss": loss, "learning_rate": rate})
        self.model.eval()

    def _update(self, lanes: Tensor) -> float:
        """One step of the optimiser on the next chunk of these lanes."""
        obs, severity, reset, weight = self._gather(lanes)
        logits, hidden = self.model(obs, reset, self.hidden[lanes])
        loss = self.loss(logits, severity, weight)
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.grad_clip)
        if not bool(norm.isfinite()):
            raise KoboshiError(f"the detector's gradient is not finite at iteration {self.iteration}; check the data")
        self.optimiser.step()
        steps = self.sequences[self.lanes[int(lanes[0])][0]].num_steps
        self.hidden[lanes] = hidden.detach()
        self.position[lanes] = (self.position[lanes] + self.cfg.chunk) % steps
        return float(loss.detach())

    def loss(self, logits: Tensor, severity: Tensor, weight: Tensor) -> Tensor:
        """Binary cross-entropy summed over the candidate joints, mean over the weighted rows."""
        truth = severity[..., self.candidates]
        faulty = truth > self.cfg.min_severity
        clear = faulty | (truth == 0)
        each = F.binary_cross_entropy_with_logits(
            logits[..., self.candidates], faulty.to(logits.dtype), reduction="none"
        )
        return (each * clear * weight.unsqueeze(-1)).sum() / weight.sum().clamp_min(1.0)

    def _gather(self, lanes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The next chunk of lanes that share sequence and side: obs, severity, reset, weight, (C, B, ...)."""
        s, flip, _ = self.lanes[int(lanes[0])]
        seq = self.sequences[s]
        env = torch.tensor([self.lanes[i][2] for i in lanes.tolist()])
        # Past the last row a lane starts over at row 0, which is a reset.
        row = (self.position[lanes] + torch.arange(self.cfg.chunk).unsqueeze(-1)) % seq.num_steps
        obs, severity = seq.obs[row, env], seq.severity[row, env]
        if flip:
            assert self.mirror is not None
            obs = obs[..., self.mirror.obs_ids] * self.mirror.obs_sign
            severity = severity[..., self.mirror.joint_ids]
        return obs, severity, seq.reset[row, env], self.weights[s][row, env]

    def _next_lanes(self) -> Tensor:
        """The lanes of this iteration: each round goes once through all, in an order drawn from the seed."""
        sizes = self._lane_groups()
        a_round = sum(math.ceil(size / self.cfg.batch_envs) for size in sizes)
        round_, index = divmod(self.iteration, a_round)
        if round_ != self._round:
            generator, start, batches = self._generator(round_), 0, []
            for size in sizes:
                order = start + torch.randperm(size, generator=generator)
                batches += list(order.split(self.cfg.batch_envs))
                start += size
            shuffled = torch.randperm(len(batches), generator=generator)
            self._batches, self._round = [batches[i] for i in shuffled.tolist()], round_
        return self._batches[index]

    def _lane_groups(self) -> list[int]:
        """Sizes of the runs of lanes that may share a batch (one sequence, one side)."""
        return [seq.num_envs for seq in self.sequences for _ in range(2 if self.mirror else 1)]

    def _generator(self, round_: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.cfg.seed * 1_000_003 + round_ + 1)

    def _learning_rate(self) -> float:
        warm_up = max(1, self.iterations // 20)
        progress = self.iteration / self.iterations
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.cfg.learning_rate * cosine * min(1.0, (self.iteration + 1) / warm_up)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as flat tensors."""
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{i}.{name}": value for name, value in moments.items()}
        counters = {
            "hidden": self.hidden,
            "position": self.position,
            "iteration": torch.tensor(self.iteration),
        }
        return {name: value.clone() for name, value in (state | counters).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from `state_dict`; KoboshiError where it is of another network or data set."""
        weights = {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}
        check_shapes(weights, self.model.state_dict(), "this detector")
        mine = {"hidden": self.hidden, "position": self.position}
        check_shapes({n: state[n] for n in mine if n in state}, mine, "this data set")
        self.model.load_state_dict(weights)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value.clone()
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.hidden, self.position = state["hidden"].clone(), state["position"].clone()
        self.iteration = int(state["iteration"])


def row_weights(seq: Sequences, cfg: DetectorTrainCfg) -> Tensor:
    """(T, N) weights of the rows in the loss: see DetectorTrainCfg; 0 in test episodes."""
    faults = find_faults(seq.severity, find_episodes(seq.reset, seq.episode), cfg.min_severity)
    weight = torch.where((seq.severity > 0).any(-1), cfg.late_weight, 1.0)
    window = max(1, round(cfg.onset_window_s / seq.card.control_dt))
    for env, onset, end in zip(faults.env, faults.onset, faults.end, strict=True):
        weight[onset : min(onset + window, end), env] = cfg.onset_weight
    return weight.masked_fill_(seq.test, 0.0)


def train_detector(
    sequences: list[Sequences],
    cfg: DetectorCfg | None = None,
    train_cfg: DetectorTrainCfg | None = None,
    mirror: Mirror | None = None,
    report: Report | None = None,
    checkpoint: Path | None = None,
    save_every: int = 200,
    start: FaultDetector | None = None,
) -> FaultDetector:
    """A detector trained on the training episodes of `sequences`.

    `checkpoint`: a file to store the state in every `save_every` iterations, and to go on from if it exists.
    `start`: a detector to begin with instead of random weights.
    """
    train_cfg = train_cfg or DetectorTrainCfg()
    spec = DetectorSpec.from_card(sequences[0].card)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train_cfg.seed)
        model = FaultDetector(spec, start.cfg if start else cfg)
    if start is not None:
        check_shapes(start.state_dict(), model.state_dict(), f"a detector of {spec.robot}")
        model.load_state_dict(start.state_dict())
    else:
        model.fit_scales(sequences, seed=train_cfg.seed)
    trainer = DetectorTrainer(model, sequences, train_cfg, mirror)
    made_for: dict[str, Any] = {
        "kind": "detector training",
        "spec": spec.to_dict(),
        "train_cfg": asdict(train_cfg),
    }
    if checkpoint is not None and checkpoint.exists():
        trainer.load_state_dict(load_checkpoint(checkpoint, expect=made_for)[0])
    while trainer.iteration < trainer.iterations:
        trainer.run((trainer.iteration // save_every + 1) * save_every, report)
        if checkpoint is not None:
            save_checkpoint(checkpoint, trainer.state_dict(), made_for)
    model.eval()
    return model
