"""Training the detector on whole sequences, the hidden state carried and zeroed at resets.

Rows are read from (mapped) sequences a chunk at a time and moved to the device there. Under `torchrun` each rank
trains the lanes that are its own of every batch, and gradients are summed: the batch is the same with any number of
ranks, and so are the weights on all of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from koboshi.data import OBS, PARTS, Sequences, find_episodes, find_faults
from koboshi.detect.base import Detector, Reading
from koboshi.detect.build import AnyDetectorCfg, build_detector
from koboshi.detect.spec import GROUP, DetectorSpec
from koboshi.errors import KoboshiError
from koboshi.nets.distributed import init_from_environment, sum_over_ranks
from koboshi.nets.parts import count_of_parts, in_parts
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
    kind_weight: float = 0.3
    severity_weight: float = 3.0
    """What of a broken joint's kind and severity weighs, beside that it is broken."""
    min_severity: float = 0.0
    """A joint with a severity above 0 but not above this is neither faulty nor healthy: it does not count."""
    seed: int = 0
    device: str = "cpu"
    """Where it is trained and where recorded data are judged."""

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


class _Rows(NamedTuple):
    """A chunk of some lanes, (C, B, …)."""

    obs: Tensor
    severity: Tensor
    kind: Tensor
    """Index into the detector's kinds; meaningless where severity is 0."""
    reset: Tensor
    weight: Tensor


class _Found(NamedTuple):
    """What a chunk of some lanes says."""

    loss: Tensor
    hidden: Tensor
    """(B, S) after its last row."""
    grads: tuple[Tensor, ...]
    """One a parameter."""


class DetectorTrainer:
    """Trains `model` in place, on its device; stopped anywhere, it resumes from its `state_dict` with the same numbers.

    Every environment (and its mirror image, where a mirror is given) is a lane with its own place in time
    and hidden state. An iteration moves one batch of lanes on by one chunk; after the last row a lane starts
    over. Lanes begin at random places, so that a batch sees all parts of an episode.
    """

    def __init__(
        self,
        model: Detector,
        sequences: list[Sequences],
        cfg: DetectorTrainCfg | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.model, self.sequences, self.cfg = model, sequences, cfg or DetectorTrainCfg()
        self.device = model.device
        self.mirror = Mirror(*(part.to(self.device) for part in mirror)) if mirror else None
        self.rank, self.ranks = init_from_environment()
        self.weights = [row_weights(seq, self.cfg) for seq in sequences]
        if not any(bool(w.any()) for w in self.weights):
            raise KoboshiError(
                "no training episodes: these data have no split, or one without them; koboshi data --split"
            )
        self.candidates = torch.tensor(model.spec.candidate_ids, device=self.device)
        self._kind_of = torch.tensor(model.spec.place_of_kinds).clamp(min=0)
        flips = (False, True) if mirror else (False,)
        self.lanes = [(s, flip, n) for s, seq in enumerate(sequences) for flip in flips for n in range(seq.num_envs)]
        rows = sum(seq.part.numel() for seq in sequences)
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

    def _update(self, batch: Tensor) -> float:
        """One step of the optimiser on the next chunk of these lanes; gives their loss."""
        lanes = batch[batch % self.ranks == self.rank]
        loss = self._backward(lanes)
        if self.ranks > 1:
            loss = sum_over_ranks(loss)
            for parameter in self.model.parameters():
                assert parameter.grad is not None
                parameter.grad.copy_(sum_over_ranks(parameter.grad))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.grad_clip)
        value, size = torch.stack((loss, norm)).tolist()
        if not math.isfinite(size):
            raise KoboshiError(f"the detector's gradient is not finite at iteration {self.iteration}; check the data")
        self.optimiser.step()
        steps = self.sequences[self.lanes[int(batch[0])][0]].num_steps
        self.position[batch] = (self.position[batch] + self.cfg.chunk) % steps
        return float(value)

    def _backward(self, lanes: Tensor) -> Tensor:
        """This rank's share of the loss of a batch; its gradients are in the parameters, hidden states moved on."""
        # Of a batch's lanes a rank may have none; then its share of everything is 0, but the others still ask for it.
        own = lanes if len(lanes) else torch.tensor([self.rank])
        parts = own.chunk(count_of_parts(self.device, len(own) * self.cfg.chunk))
        rows = in_parts(self._gather, parts)
        if not len(lanes):
            rows[0].weight.zero_()
        total = sum_over_ranks(torch.stack([row.weight.sum() for row in rows]).sum())
        before = [self.hidden[part.to(self.device)] for part in parts]
        found = in_parts(lambda i: self._gradient(rows[i], before[i], total), range(len(parts)))
        for parameter, grads in zip(self.model.parameters(), zip(*(f.grads for f in found), strict=True), strict=True):
            parameter.grad = torch.stack(grads).sum(0)
        if len(lanes):
            self.hidden[lanes.to(self.device)] = torch.cat([f.hidden for f in found])
        return torch.stack([f.loss for f in found]).sum()

    def _gradient(self, rows: _Rows, hidden: Tensor, total: Tensor) -> _Found:
        reading, after = self.model(rows.obs, rows.reset, hidden)
        loss = self.loss(reading, rows.severity, rows.kind, rows.weight, total)
        return _Found(loss.detach(), after.detach(), torch.autograd.grad(loss, list(self.model.parameters())))

    def loss(self, reading: Reading, severity: Tensor, kind: Tensor, weight: Tensor, total: Tensor) -> Tensor:
        """Binary cross-entropy summed over the candidate joints, mean over rows that weigh `total` in all; of broken
        joints also the cross-entropy of their kind and the squared error of their severity, weighed as `cfg` says."""
        truth = severity[..., self.candidates]
        logits = reading.logit[..., self.candidates]
        faulty = truth > self.cfg.min_severity
        clear = faulty | (truth == 0)
        each = F.binary_cross_entropy_with_logits(logits, faulty.to(logits.dtype), reduction="none")
        if self.model.spec.graded:
            likely = reading.kind.log_softmax(-2)[..., self.candidates]
            unlike = -likely.gather(-2, kind[..., None, self.candidates]).squeeze(-2)
            off = (reading.severity[..., self.candidates] - truth).square()
            each = each + faulty * (self.cfg.kind_weight * unlike + self.cfg.severity_weight * off)
        return (each * clear * weight.unsqueeze(-1)).sum() / total.clamp_min(1.0)

    def _gather(self, lanes: Tensor) -> _Rows:
        """The next chunk of lanes that share sequence and side."""
        s, flip, _ = self.lanes[int(lanes[0])]
        seq = self.sequences[s]
        env = torch.tensor([self.lanes[i][2] for i in lanes.tolist()])
        # Past the last row a lane starts over at row 0, which is a reset.
        row = (self.position[lanes] + torch.arange(self.cfg.chunk).unsqueeze(-1)) % seq.num_steps
        columns = (seq[OBS + GROUP], seq["severity"], seq["reset"], self.weights[s])
        obs, severity, reset, weight = (column[row, env].to(self.device) for column in columns)
        kind = self._kind_of[seq["kind"][row, env].clamp(min=0).long()].to(self.device)
        if flip:
            assert self.mirror is not None
            obs = obs[..., self.mirror.obs_ids] * self.mirror.obs_sign
            severity, kind = severity[..., self.mirror.joint_ids], kind[..., self.mirror.joint_ids]
        return _Rows(obs, severity, kind, reset, weight)

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
        """Everything a resumed run needs, as flat tensors; every rank must ask, and gets the same."""
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{i}.{name}": value for name, value in moments.items()}
        own = torch.arange(len(self.lanes), device=self.device) % self.ranks == self.rank
        counters = {
            "hidden": sum_over_ranks(self.hidden * own.unsqueeze(-1)),
            "position": self.position,
            "iteration": torch.tensor(self.iteration),
        }
        return {name: value.clone() for name, value in (state | counters).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resumes from `state_dict`; KoboshiError where it is of another network or data set."""
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
        self.hidden, self.position = state["hidden"].clone().to(self.device), state["position"].clone()
        self.iteration = int(state["iteration"])


def row_weights(seq: Sequences, cfg: DetectorTrainCfg) -> Tensor:
    """(T, N) weights of the rows in the loss: see DetectorTrainCfg; 0 in all but training episodes."""
    faults = find_faults(seq, find_episodes(seq), cfg.min_severity)
    window = max(1, round(cfg.onset_window_s / seq.card.control_dt))
    weight = torch.empty(seq.part.shape)
    for first, block in seq.blocks():
        failed = (block["severity"] > 0).any(-1)
        weight[:, first : first + block.num_envs] = torch.where(failed, cfg.late_weight, 1.0)
    for env, onset, end in zip(faults.env, faults.onset, faults.end, strict=True):
        weight[onset : min(onset + window, end), env] = cfg.onset_weight
    return weight.masked_fill_(seq.part != PARTS.index("train"), 0.0)


def _identity(sequences: Sequences) -> list[str]:
    """What tells these rows and their split from others."""
    return [sequences.card.content, hashlib.sha256(sequences.part.numpy().tobytes()).hexdigest()[:16]]


def _weights_digest(model: Detector) -> str:
    sha = hashlib.sha256()
    for value in model.state_dict().values():
        sha.update(value.cpu().numpy().tobytes())
    return sha.hexdigest()[:16]


def train_detector(
    sequences: list[Sequences],
    cfg: AnyDetectorCfg | None = None,
    train_cfg: DetectorTrainCfg | None = None,
    mirror: Mirror | None = None,
    report: Report | None = None,
    checkpoint: Path | None = None,
    save_every: int = 200,
    device: torch.device | str | None = None,
    start: Detector | None = None,
) -> Detector:
    """A detector trained on the training episodes of `sequences`, and lying on the device.

    `start`: whose weights it begins with; one without anything to learn takes none.
    `checkpoint`: a file to store the state in every `save_every` iterations, and to resume from if it exists.
    `device`: `train_cfg.device` by default. KoboshiError where no episode is in the part "train", or data sets differ
    in what a detector is told or asked about.
    """
    train_cfg = train_cfg or DetectorTrainCfg()
    spec = DetectorSpec.from_cards([each.card for each in sequences])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train_cfg.seed)
        model = build_detector(spec, cfg)
    model.fit_scales(sequences, seed=train_cfg.seed)
    if not list(model.parameters()):
        return model.eval().to(device or train_cfg.device)  # nothing is left to learn
    if start is not None:
        check_shapes(start.state_dict(), model.state_dict(), "this detector")
        model.load_state_dict(start.state_dict())  # with the scales that these weights are used to
    model.to(device or train_cfg.device)
    trainer = DetectorTrainer(model, sequences, train_cfg, mirror)
    settings = asdict(train_cfg)
    del settings["device"]  # a training may be resumed on another one
    made_for: dict[str, Any] = {"kind": "detector training", "spec": spec.to_dict(), "train_cfg": settings}
    # Resumed on another split it would be tested on episodes that it has learnt from.
    made_for["data"] = [_identity(each) for each in sequences]
    made_for["start"] = _weights_digest(start) if start is not None else None
    if checkpoint is not None and checkpoint.exists():
        trainer.load_state_dict(load_checkpoint(checkpoint, expect=made_for)[0])
    while trainer.iteration < trainer.iterations:
        trainer.run((trainer.iteration // save_every + 1) * save_every, report)
        if checkpoint is not None:
            state = trainer.state_dict()
            if trainer.rank == 0:
                save_checkpoint(checkpoint, state, made_for)
    return model.eval()
