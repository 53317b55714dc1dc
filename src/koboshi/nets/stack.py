"""K networks of one shape as one: weights (K, in, out), data (K, B, in)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from koboshi.vec_env import anyone


class StackedLinear(nn.Module):
    """K linear layers: (K, B, in) -> (K, B, out)."""

    def __init__(self, members: int, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        weight = torch.empty(members, inputs, outputs)
        for member in weight:
            nn.init.orthogonal_(member, gain)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _MLP.apply(x, 1, self.weight, self.bias)
        return output


class StackedMLP(nn.Module):
    """K multi-layer perceptrons with ELU between layers: (K, B, in) -> (K, B, out).

    Differentiable once, which is all that first-order learning asks for and much faster than layer by layer.
    """

    def __init__(self, members: int, inputs: int, hidden: Sequence[int], outputs: int, last_gain: float = 1.0) -> None:
        super().__init__()
        widths = [inputs, *hidden, outputs]
        gains = [2**0.5] * len(hidden) + [last_gain]
        self.layers = nn.ModuleList(
            StackedLinear(members, a, b, g) for a, b, g in zip(widths[:-1], widths[1:], gains, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights, biases = [layer.weight for layer in self.layers], [layer.bias for layer in self.layers]
        output: Tensor = _MLP.apply(x, len(weights), *weights, *biases)
        return output


class _MLP(torch.autograd.Function):
    """Affine layers with ELU between them, written into few buffers, and their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: int, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[:layers], parameters[layers:]
        inputs = [x]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs.append(_elu_(_affine(inputs[-1], weight, bias)))
        ctx.save_for_backward(*inputs, *weights)
        return _affine(inputs[-1], weights[-1], biases[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        of_weights: list[Tensor] = []
        of_biases: list[Tensor] = []
        for k in reversed(range(layers)):
            of_weights.append(_product(inputs[k].transpose(1, 2), grad))
            of_biases.append(grad.sum(1, keepdim=True))
            if k == 0 and not ctx.needs_input_grad[0]:
                return None, None, *reversed(of_weights), *reversed(of_biases)
            grad = _product(grad, weights[k].transpose(1, 2))
            if k > 0:
                torch.ops.aten.elu_backward(grad, 1.0, 1.0, 1.0, True, inputs[k], grad_input=grad)
        return grad, None, *reversed(of_weights), *reversed(of_biases)


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # One member is the ordinary case: a plain matrix product is faster than a batch of one.
    if len(weight) == 1:
        return torch.addmm(bias[0, 0], x[0], weight[0]).unsqueeze(0)
    return torch.baddbmm(bias, x, weight)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """(K, m, n) of (K, m, l) and (K, l, n)."""
    return torch.mm(a[0], b[0]).unsqueeze(0) if len(a) == 1 else torch.bmm(a, b)


def _elu_(x: Tensor) -> Tensor:
    """ELU (Clevert et al. 2016) in place; by exp, which takes half the time of expm1, and differs by rounding."""
    below = x.clamp(max=0).exp_().sub_(1)
    return torch.maximum(x, below, out=x)


Part = nn.Module | nn.Parameter


def _parameters_of(parts: Sequence[Part]) -> list[nn.Parameter]:
    return [p for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]


class FlatParameters:
    """All parameters of K stacked networks as one (K, P) matrix.

    The modules' parameters become views of it, so that clipping, Adam and averaging over machines are a few
    operations on one matrix, each member's row on its own.
    """

    def __init__(self, modules: Sequence[Part], last: Sequence[Part] = ()) -> None:
        """In the order of the modules, but for those of `last`, which come at the end, from column `split` on."""
        own = _parameters_of(last)
        at_end = {id(p) for p in own}
        rest = [p for p in _parameters_of(modules) if id(p) not in at_end]
        self._parameters = rest + own
        self.split = sum(p[0].numel() for p in rest)
        self.members = len(self._parameters[0])
        self.value = torch.cat([p.detach().reshape(self.members, -1) for p in self._parameters], dim=1)
        start = 0
        for p in self._parameters:
            end = start + p[0].numel()
            p.data = self.value[:, start:end].view(p.shape)
            start = end

    def gradient(self, loss: Tensor) -> Tensor:
        """(K, P) the gradient of a scalar; several threads may ask at once."""
        grads = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        return torch.cat([g.reshape(self.members, -1) for g in grads], dim=1)


class StackedAdam:
    """Adam on (K, P) parameters with a learning rate, a gradient clip and a step count for each member."""

    def __init__(self, parameters: Tensor, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        """`parameters`: `FlatParameters.value`, or some of its columns, which are changed in place."""
        self._parameters, self._betas = parameters, betas
        self.mean, self.square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.steps = torch.zeros(len(parameters), 1, device=parameters.device)

    @torch.no_grad()
    def step(
        self, grad: Tensor, learning_rate: Tensor, max_grad_norm: float, active: Tensor, eps: float = 1e-8
    ) -> Tensor:
        """A step of those `active` (K,) bool against `grad` (K, P), at `learning_rate` (K,); gives the (K,) norms."""
        norm = grad.norm(dim=1, keepdim=True)
        grad = grad * (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        on = active[:, None]
        self.steps += on
        if anyone(~active):
            # A member that learns nothing now must not decay its moments either.
            grad = torch.where(on, grad, self.mean)
            square = torch.where(on, grad.square(), self.square)
        else:
            square = grad.square()
        self.mean.lerp_(grad, 1 - self._betas[0])
        self.square.lerp_(square, 1 - self._betas[1])
        count = self.steps.clamp(min=1)
        # 1 − βⁿ; as written, single precision would lose its digits in the first steps.
        first, second = (-torch.expm1(count * math.log(beta)) for beta in self._betas)
        correction = second.sqrt()
        rate = learning_rate[:, None] * correction / first * on
        self._parameters -= rate * self.mean / (self.square.sqrt() + eps * correction)
        return norm.squeeze(1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean.clone(), "square": self.square.clone(), "steps": self.steps.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in self.state_dict():
            getattr(self, name).copy_(state[name])
