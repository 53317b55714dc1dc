"""What a detector remembers of the rows before this one: a GRU, a stack of dilated convolutions, or a window.

Each maps rows (T, M, E) of M sequences to (T, M, W), given keep (T, M) float, 0 where a row begins an episode and 1
elsewhere, and what is carried, (M, S); it gives what to carry on too. Chunks of any length give the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Memory(nn.Module):
    """What all have in common."""

    width: int
    """W, numbers a row."""
    carried: int
    """S, numbers carried from row to row."""

    def forward(self, x: Tensor, keep: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class GruMemory(Memory):
    """A gated recurrent unit (Cho et al. 2014, as in torch.nn.GRU)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = self.carried = width
        self.cell = nn.GRUCell(inputs, width)

    def forward(self, x: Tensor, keep: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        cell, rows = self.cell, []
        weights = cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
        # unbind, because the gradient of indexing would fill a (T, M, E) tensor with zeros at every step.
        for row, kept in zip(x.unbind(0), keep.unbind(0), strict=True):
            state = torch.gru_cell(row, state * kept[:, None], *weights)
            rows.append(state)
        return torch.stack(rows), state


class _Rows(Memory):
    """Memories that look at rows as they were: what is carried ends with the row's number in its episode."""

    def _numbered(self, keep: Tensor, state: Tensor) -> Tensor:
        """(T, M) how many rows of its episode lie before each row."""
        number, numbers = state[:, -1], []
        for kept in keep.unbind(0):
            number = (number + 1) * kept
            numbers.append(number)
        return torch.stack(numbers)


class TcnMemory(_Rows):
    """Causal convolutions of two taps with dilations 1, 2, 4, … and residual sums (Bai et al. 2018).

    They look back on `span` rows; before an episode's first one there are zeros.
    """

    def __init__(self, inputs: int, width: int, span: int) -> None:
        super().__init__()
        self.dilations = [2**i for i in range((span - 1).bit_length())]
        self.width, self.carried = width, width * sum(self.dilations) + 1
        self.enter = nn.Linear(inputs, width)
        self.now = nn.ModuleList(nn.Linear(width, width) for _ in self.dilations)
        self.then = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in self.dilations)

    def forward(self, x: Tensor, keep: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        number = self._numbered(keep, state)
        sizes = [self.width * d for d in self.dilations]
        x, carried = self.enter(x), []
        for d, now, then, past in zip(self.dilations, self.now, self.then, state[:, :-1].split(sizes, 1), strict=True):
            rows = torch.cat((past.unflatten(1, (d, self.width)).transpose(0, 1), x))
            before = rows[: len(x)] * (number >= d)[..., None]
            carried.append(rows[len(x) :].transpose(0, 1).flatten(1))
            x = x + F.elu(now(x) + then(before))
        return x, torch.cat((*carried, number[-1][:, None]), 1)


class WindowMemory(_Rows):
    """A layer that sees the last `span` rows at once; before an episode's first row there are zeros."""

    def __init__(self, inputs: int, width: int, span: int) -> None:
        super().__init__()
        self.span, self.inputs = span, inputs
        self.width, self.carried = width, (span - 1) * inputs + 1
        self.layer = nn.Linear(span * inputs, width)

    def forward(self, x: Tensor, keep: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        number, before = self._numbered(keep, state), self.span - 1
        past = state[:, :-1].unflatten(1, (before, self.inputs)).transpose(0, 1)
        rows = torch.cat((past, x))
        # (T, M, span, E), oldest first.
        windows = rows.unfold(0, self.span, 1).permute(0, 1, 3, 2)
        age = torch.arange(before, -1, -1, device=x.device)
        windows = windows * (number[..., None] >= age)[..., None]
        carried = rows[len(x) :].transpose(0, 1).flatten(1)
        return F.elu(self.layer(windows.flatten(2))), torch.cat((carried, number[-1][:, None]), 1)


def build_memory(kind: str, inputs: int, width: int, span: int) -> Memory:
    """One of `MEMORIES`; a GRU has no use for `span`."""
    if kind == "gru":
        return GruMemory(inputs, width)
    return (TcnMemory if kind == "tcn" else WindowMemory)(inputs, width, span)
