"""A controller as one ONNX graph: policies, normalisers, detector, router, and all that they carry."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from koboshi.envs import EnvCfg
from koboshi.errors import KoboshiError
from koboshi.nets import state_tree
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import BELIEF
from koboshi.vec_env import Obs, State

OUTPUTS = ("action", "member", "probability")


def groups_of(controller: Controller, routed: bool) -> tuple[str, ...]:
    """The observation groups that it takes; what it believes is its own."""
    policies = [controller.healthy, *([controller.bank.policy] if controller.bank is not None else [])]
    named = [group for each in policies for group in _actor_groups(each)]
    return tuple(dict.fromkeys(g for g in (*named, *(("detector",) if routed else ())) if g != BELIEF))


def _actor_groups(policy: Any) -> tuple[str, ...]:
    stack = getattr(policy, "stack", policy)
    return tuple(stack.actor.groups)


def check_groups(cfg: EnvCfg, controller: Controller) -> None:
    """KoboshiError where a policy sees what a deployed robot cannot give it."""
    if BELIEF in _actor_groups(controller.healthy):
        raise KoboshiError(f"this policy is a specialist, told what a detector believes ('{BELIEF}'); export its bank")
    for group in groups_of(controller, False):
        if group not in cfg.observations or not cfg.observations[group].concatenate:
            raise KoboshiError(f"the policy sees '{group}', and only groups of numbers side by side are exported")


class Graph(nn.Module):
    """One robot's step with flat inputs: the groups, `reset` (1,) bool, and what was carried."""

    def __init__(self, controller: Controller, groups: tuple[str, ...]) -> None:
        super().__init__()
        self._controller, self.groups = controller, groups
        # What is one tensor in two places would become one input.
        self.initial: State = state_tree.map_state(Tensor.clone, controller.initial_state(1))

    @property
    def carried(self) -> list[Tensor]:
        """What is carried before the first step, in order."""
        return list(state_tree.leaves(self.initial))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        obs = dict(zip(self.groups, inputs, strict=False))
        reset, leaves = inputs[len(obs)], inputs[len(obs) + 1 :]
        named = {f"state.{i}": leaf for i, leaf in enumerate(leaves)}
        state = state_tree.unflatten(self.initial, named)
        decision, after = self._controller.act(obs, reset, state)
        route = decision.route
        told = (decision.action, route.member, route.belief.probability)
        # A graph may not give an input back as it is.
        return (*told, *(leaf.clone() for leaf in state_tree.leaves(after)))


def to_onnx(graph: Graph, obs: Obs, metadata: Mapping[str, str]) -> bytes:
    """The graph as ONNX, with `metadata` in it; obs: group -> (1, d), for their shapes."""
    try:
        import onnx
        import onnxscript  # noqa: F401 (the exporter's)
    except ImportError as error:
        raise KoboshiError("ONNX is not installed: pip install 'koboshi[export]'") from error
    names = [*graph.groups, "reset", *(f"carried.{i}" for i in range(len(graph.carried)))]
    given = (*(obs[group] for group in graph.groups), torch.ones(1, dtype=torch.bool), *graph.carried)
    outputs = [*OUTPUTS, *(f"next.{i}" for i in range(len(graph.carried)))]
    try:
        with torch.no_grad(), _quietly():
            program = torch.export.export(graph, given, strict=False)
            found = torch.onnx.export(program, given, input_names=names, output_names=outputs, dynamo=True)
    except Exception as error:  # the exporter's own, of many kinds
        raise KoboshiError(f"this controller cannot be traced: {str(error).splitlines()[0]}") from error
    assert found is not None
    proto = found.model_proto
    onnx.helper.set_model_props(proto, dict(metadata))
    buffer = io.BytesIO()
    onnx.save_model(proto, buffer)
    return buffer.getvalue()


@contextmanager
def _quietly() -> Any:
    """The exporter tells of libraries that nobody asked for."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
