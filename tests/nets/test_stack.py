"""Stacked networks and their optimiser against torch's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from koboshi.nets.stack import FlatParameters, StackedAdam, StackedMLP


def test_a_stack_equals_ordinary_networks() -> None:
    stack = StackedMLP(3, 4, (8, 8), 2)
    x = torch.randn(3, 5, 4)
    out = stack(x)
    for k in range(3):
        modules: list[nn.Module] = []
        for layer in stack.layers:
            linear = nn.Linear(*layer.weight.shape[1:])
            linear.weight.data, linear.bias.data = layer.weight.data[k].T, layer.bias.data[k, 0]
            modules += [linear, nn.ELU()]
        torch.testing.assert_close(out[k], nn.Sequential(*modules[:-1])(x[k]))


def test_one_member_equals_the_stack_it_comes_from() -> None:
    stack, one = StackedMLP(2, 4, (8,), 2), StackedMLP(1, 4, (8,), 2)
    one.load_state_dict({name: value[1:] for name, value in stack.state_dict().items()})
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(one(x[1:])[0], stack(x)[1])


def test_flat_parameters_are_the_networks_parameters() -> None:
    stack, log_std = StackedMLP(2, 3, (4,), 2), nn.Parameter(torch.zeros(2, 1, 2))
    flat = FlatParameters([stack, log_std])
    assert flat.value.shape == (2, 3 * 4 + 4 + 4 * 2 + 2 + 2)
    x = torch.randn(2, 5, 3)

    def loss() -> Tensor:
        return (stack(x) * log_std.exp()).square().sum()

    expected = torch.autograd.grad(loss(), [*stack.parameters(), log_std])
    for _ in range(2):  # a second call starts anew
        assert torch.equal(flat.gradient(loss()), torch.cat([g.reshape(2, -1) for g in expected], dim=1))
    flat.value.zero_()
    assert not stack(x).any()


def reference(value: Tensor, grads: list[Tensor], rate: float, clip: float) -> Tensor:
    """torch's Adam on the same gradients."""
    parameter = nn.Parameter(value.clone())
    adam = torch.optim.Adam([parameter], lr=rate)
    for grad in grads:
        parameter.grad = grad.clone()
        nn.utils.clip_grad_norm_([parameter], clip)
        adam.step()
    return parameter.detach()


def flat_of(members: int) -> FlatParameters:
    return FlatParameters([nn.Parameter(torch.randn(members, 6))])


def test_adam_equals_torchs_with_clipping() -> None:
    flat = flat_of(1)
    grads = [torch.randn(1, 6) * scale for scale in (0.01, 10.0, 0.3, 5.0, 1e-4)]
    expected = reference(flat.value, grads, 0.01, 1.0)
    adam = StackedAdam(flat.value)
    for grad in grads:
        norm = adam.step(grad, torch.tensor([0.01]), 1.0, torch.tensor([True]))
        torch.testing.assert_close(norm, grad.norm(dim=1))
    torch.testing.assert_close(flat.value, expected, rtol=1e-6, atol=1e-7)


def test_each_member_has_its_own_rate_clip_and_steps() -> None:
    flat, rates = flat_of(3), [0.01, 0.1, 0.001]
    grads = [torch.randn(3, 6) * torch.tensor([[0.1], [3.0], [50.0]]) for _ in range(6)]
    active = [torch.tensor([True, i % 2 == 0, i >= 3]) for i in range(6)]
    expected = [
        reference(flat.value[k : k + 1], [g[k : k + 1] for g, a in zip(grads, active, strict=True) if a[k]], r, 1.0)
        for k, r in enumerate(rates)
    ]
    adam = StackedAdam(flat.value)
    for grad, on in zip(grads, active, strict=True):
        before = (flat.value.clone(), adam.mean.clone(), adam.square.clone())
        adam.step(grad, torch.tensor(rates), 1.0, on)
        for old, new in zip(before, (flat.value, adam.mean, adam.square), strict=True):
            assert torch.equal(old[~on], new[~on])
    assert adam.steps.flatten().tolist() == [6, 3, 3]
    torch.testing.assert_close(flat.value, torch.cat(expected), rtol=1e-6, atol=1e-7)


def test_a_loaded_optimiser_goes_on_alike() -> None:
    first, second = flat_of(2), flat_of(2)
    second.value.copy_(first.value)
    a, b = StackedAdam(first.value), StackedAdam(second.value)
    on, rate = torch.tensor([True, True]), torch.tensor([0.1, 0.1])
    a.step(torch.randn(2, 6), rate, 1.0, on)
    b.load_state_dict(a.state_dict())
    second.value.copy_(first.value)
    for adam in (a, b):
        adam.step(torch.full((2, 6), 0.3), rate, 1.0, on)
    assert torch.equal(first.value, second.value)


def test_gradients_equal_those_of_ordinary_networks() -> None:
    for members in (1, 3):
        stack = StackedMLP(members, 4, (8, 6), 1)
        x = torch.randn(members, 50, 4, requires_grad=True)
        stack(x).square().sum().backward()
        for k in range(members):
            modules: list[nn.Module] = []
            for layer in stack.layers:
                linear = nn.Linear(*layer.weight.shape[1:])
                linear.weight.data, linear.bias.data = layer.weight.data[k].T.clone(), layer.bias.data[k, 0].clone()
                modules += [linear, nn.ELU()]
            inputs = x.detach()[k].requires_grad_()
            nn.Sequential(*modules[:-1])(inputs).square().sum().backward()
            torch.testing.assert_close(x.grad[k], inputs.grad)
            for layer, linear in zip(stack.layers, modules[::2], strict=True):
                torch.testing.assert_close(layer.weight.grad[k].T, linear.weight.grad)
                torch.testing.assert_close(layer.bias.grad[k, 0], linear.bias.grad)
