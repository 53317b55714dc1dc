"""The observation manager: groups of terms, their layout, noise, delay and history."""

from __future__ import annotations

from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from koboshi.envs.cfg import ObsGroup, ObsTerm
from koboshi.envs.scene import counts
from koboshi.errors import KoboshiError, unknown
from koboshi.vec_env import ObsSpec, Place, name_of_past

if TYPE_CHECKING:
    from koboshi.envs.env import Env

_PAST = "past"
_FIXED_MIRRORS = {
    "vector": ((0, 1, 2), (1.0, -1.0, 1.0)),
    "axial": ((0, 1, 2), (-1.0, 1.0, -1.0)),
    "command": ((0, 1, 2), (1.0, -1.0, -1.0)),
}


@dataclass(frozen=True)
class LayoutEntry:
    """Where a term lies in its group's vector. History is stored oldest first, `width` numbers in all."""

    name: str
    start: int
    width: int
    history: int
    scale: float = 1.0
    clip: float | None = None

    @property
    def place(self) -> Place:
        return Place(self.name, self.start, self.width)

    @property
    def scaled(self) -> tuple[float, float | None] | None:
        """Scale and clip, where the numbers are not simply in SI units."""
        return None if (self.scale, self.clip) == (1.0, None) else (self.scale, self.clip)


class _Term:
    """One term of a group with its buffers."""

    def __init__(self, name: str, cfg: ObsTerm, env: Env, generator: torch.Generator) -> None:
        self.name, self.cfg, self._generator = name, cfg, generator
        value = cfg.func(env, **cfg.params)
        if value.ndim < 2 or value.shape[0] != env.num_envs:
            raise KoboshiError(f"observation '{name}' has shape {tuple(value.shape)}, not ({env.num_envs}, …)")
        self.is_vector = value.ndim == 2 and value.is_floating_point()
        self.spec = ObsSpec(tuple(value.shape[1:]), value.dtype)
        self.buffers: dict[str, Tensor] = {}
        if not self.is_vector:
            self._check_plain()
            return
        self.dim = value.shape[1]
        if cfg.delay[1] > 0:
            self.buffers["past"] = value.unsqueeze(1).repeat(1, cfg.delay[1] + 1, 1)
            self.buffers["lag"] = torch.zeros(env.num_envs, dtype=torch.int64, device=value.device)
        if cfg.history > 1:
            self.buffers["history"] = value.unsqueeze(1).repeat(1, cfg.history, 1)

    def _check_plain(self) -> None:
        """An image is given as it is."""
        plain = ObsTerm(self.cfg.func)
        for field in ("noise", "delay", "scale", "clip", "history"):
            if getattr(self.cfg, field) != getattr(plain, field):
                raise KoboshiError(
                    f"observation '{self.name}' is {self.spec.dtype} of shape {self.spec.shape}: it has no {field}"
                )

    @property
    def width(self) -> int:
        return self.dim * self.cfg.history

    def noise_scale(self) -> Tensor:
        """(d,) half-width of each number's noise."""
        noise = torch.tensor(self.cfg.noise)
        if noise.ndim and len(noise) != self.dim:
            raise KoboshiError(f"observation '{self.name}' has {self.dim} numbers, but {len(noise)} noise widths")
        return noise.expand(self.dim)

    def compute(self, value: Tensor, fresh: Tensor | None) -> Tensor:
        """value (N, d) with its noise; `fresh` (N,) bool: refill these rows' buffers, leave the others alone."""
        if "past" in self.buffers:
            value = self._delayed(value, fresh)
        if self.cfg.scale != 1.0:
            value = value * self.cfg.scale
        if self.cfg.clip is not None:
            value = value.clamp(-self.cfg.clip, self.cfg.clip)
        if "history" in self.buffers:
            value = self._push("history", value, fresh).flatten(1)
        return value

    def _delayed(self, value: Tensor, fresh: Tensor | None) -> Tensor:
        if fresh is not None:
            low, high = self.cfg.delay
            lag = torch.randint(low, high + 1, fresh.shape, generator=self._generator, device=value.device)
            self.buffers["lag"] = torch.where(fresh, lag, self.buffers["lag"])
        past = self._push("past", value, fresh)
        rows = torch.arange(len(value), device=value.device)
        return past[rows, past.shape[1] - 1 - self.buffers["lag"]]

    def _push(self, name: str, value: Tensor, fresh: Tensor | None) -> Tensor:
        buffer = self.buffers[name] = _pushed(self.buffers[name], value, fresh)
        return buffer


def _pushed(buffer: Tensor, value: Tensor, fresh: Tensor | None) -> Tensor:
    """(N, h, d) with (N, d) added at its end; `fresh` (N,): these rows filled with it, and the others left alone."""
    if fresh is None:
        return torch.cat((buffer[:, 1:], value.unsqueeze(1)), dim=1)
    return torch.where(fresh[:, None, None], value.unsqueeze(1), buffer)


class ObservationManager:
    """Computes every group; `layouts[group]` says where each term of a vector lies, `spec` what each group is.

    A group that is not concatenated is one observation a term, `group.term`.
    """

    def __init__(self, groups: dict[str, ObsGroup], env: Env) -> None:
        self._env = env
        self._terms: dict[str, list[_Term]] = {}
        self._bases: dict[str, str | None] = {}
        self.layouts: dict[str, tuple[LayoutEntry, ...]] = {}
        self._noise: dict[str, Tensor | None] = {}
        self._sources: dict[str, list[_Term]] = {}
        self.spec: dict[str, ObsSpec] = {}
        self._histories: dict[str, ObsGroup] = {}
        self._past: dict[str, Tensor] = {}
        """(N, length, d) of groups with a history, oldest first."""
        for name, group in groups.items():
            terms = [_Term(n, t, env, env.generator) for n, t in group.terms.items() if t is not None]
            if not terms:
                raise KoboshiError(f"observation group '{name}' holds no term of its own")
            if group.concatenate:
                self._add(name, terms, group.base, group.noise)
                if group.history_length > 1:
                    self._add_history(name, group)
            else:
                for term in terms:
                    self._add(f"{name}.{term.name}", [term], None, group.noise)

    def _add(self, name: str, terms: list[_Term], base: str | None, noise: bool) -> None:
        if base is not None and base not in self._terms:
            raise unknown("earlier observation group", base, self._terms)
        if base in self._histories:
            raise KoboshiError(f"observation group '{base}' has a history, and '{name}' cannot begin with it")
        if base is not None and base not in self._sources:
            raise KoboshiError(f"observation group '{base}' is no vector, and '{name}' cannot begin with it")
        self._terms[name], self._bases[name] = terms, base
        if len(terms) == 1 and not terms[0].is_vector and base is None:
            self.spec[name], self._noise[name] = terms[0].spec, None
            return
        for term in terms:
            if not term.is_vector:
                raise KoboshiError(f"observation '{name}.{term.name}' is no vector; set concatenate=false for '{name}'")
        self._noise[name] = self._noise_scales(name) if noise else None
        self._sources[name] = (self._sources[base] if base else []) + terms
        self.layouts[name] = _layout(self._sources[name])
        self.spec[name] = _spec_of(self.layouts[name])

    def _add_history(self, name: str, group: ObsGroup) -> None:
        length, layout, width = group.history_length, self.layouts[name], self.spec[name].shape[0]
        self._histories[name] = group
        self._past[name] = torch.zeros(self._env.num_envs, length, width, device=self._env.device)
        ages = range(length) if group.newest_first else reversed(range(length))
        self.layouts[name] = tuple(
            replace(entry, name=name_of_past(entry.name, age), start=entry.start + frame * width)
            for frame, age in enumerate(ages)
            for entry in layout
        )
        self.spec[name] = _spec_of(self.layouts[name])

    def _noise_scales(self, group: str) -> Tensor | None:
        scales = [t.noise_scale() for t in self._terms[group]]
        row = torch.cat(scales) if scales else torch.zeros(0)
        return row.to(self._env.device) if bool((row > 0).any()) else None

    def compute(self, fresh: Tensor | None = None, previous: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """All groups, each (N, …). After a reset: `fresh` (N,) bool rows are new, the others are `previous`'s."""
        out: dict[str, Tensor] = {}
        for name, base in self._bases.items():
            value = self._compute_terms(name, fresh)
            if name in self._histories:
                value = self._with_history(name, value, fresh)
            if fresh is not None and previous is not None:
                old = previous[name] if base is None else previous[name][:, -value.shape[1] :]
                value = torch.where(fresh.view(-1, *[1] * (value.ndim - 1)), value, old)
            out[name] = torch.cat((out[base], value), dim=1) if base is not None else value
        return out

    def _with_history(self, name: str, value: Tensor, fresh: Tensor | None) -> Tensor:
        """(N, d) -> (N, length · d)."""
        past = self._past[name] = _pushed(self._past[name], value, fresh)
        return (past.flip(1) if self._histories[name].newest_first else past).flatten(1)

    def _compute_terms(self, group: str, fresh: Tensor | None) -> Tensor:
        terms, env = self._terms[group], self._env
        if group not in self.layouts:
            value: Tensor = terms[0].cfg.func(env, **terms[0].cfg.params)
            return value
        raw = torch.cat([t.cfg.func(env, **t.cfg.params) for t in terms], dim=1)
        scales = self._noise[group]
        if scales is not None:
            noise = torch.rand(raw.shape, generator=env.generator, device=env.device)
            raw = torch.addcmul(raw, noise.sub_(0.5), scales, value=2.0)
        if all(not t.buffers and t.cfg.scale == 1.0 and t.cfg.clip is None for t in terms):
            return raw
        parts = raw.split([t.dim for t in terms], dim=1)
        return torch.cat([t.compute(p, fresh) for t, p in zip(terms, parts, strict=True)], dim=1)

    def mirror(self, group: str) -> tuple[Tensor, Tensor]:
        """(ids, signs), each (d,): the mirrored observation is `signs * obs[:, ids]`."""
        if group not in self._sources:
            raise unknown("vector of observations", group, self._sources, "vectors")
        ids, signs, start = [], [], 0
        for term in self._sources[group]:
            term_ids, term_signs = _mirror_of(term, self._env)
            for _ in range(term.cfg.history):
                ids.append(torch.as_tensor(term_ids).cpu() + start)
                signs.append(torch.as_tensor(term_signs, dtype=torch.float32).cpu())
                start += term.dim
        places, faces = torch.cat(ids), torch.cat(signs)
        if group in self._histories:
            length = self._histories[group].history_length
            places = (torch.arange(length)[:, None] * start + places).flatten()
            faces = faces.repeat(length)
        return places.to(self._env.device), faces.to(self._env.device)

    @property
    def term_joints(self) -> dict[str, list[str]]:
        """Term -> the joint of each of its numbers, of terms a joint that do not list all joints in their order."""
        names = self._env.robot.joint_names
        found = {}
        for term in (term for terms in self._terms.values() for term in terms):
            if getattr(term.cfg.func, "mirror", None) in _OF_JOINTS:
                joints = [names[j] for j in _joints_of(term, self._env)]
                if joints != list(names):
                    found[term.name] = joints
        return found

    def blame(self, group: str, value: Tensor) -> str:
        """The first term of a group whose numbers are not finite."""
        bad = (~torch.isfinite(value)).flatten(1).any(0)
        return next((e.name for e in self.layouts.get(group, ()) if bad[e.place.slice].any()), group)

    def state_dict(self) -> dict[str, Tensor]:
        past = {f"{group}.{_PAST}": value.clone() for group, value in self._past.items()}
        return past | {
            f"{group}.{t.name}.{name}": buffer.clone()
            for group, terms in self._terms.items()
            for t in terms
            for name, buffer in t.buffers.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for group in self._past:
            self._past[group] = state[f"{group}.{_PAST}"].to(self._env.device, copy=True)
        for group, terms in self._terms.items():
            for t in terms:
                for name in t.buffers:
                    t.buffers[name] = state[f"{group}.{t.name}.{name}"].to(self._env.device, copy=True)


def _layout(terms: list[_Term]) -> tuple[LayoutEntry, ...]:
    entries, start = [], 0
    for term in terms:
        entries.append(LayoutEntry(term.name, start, term.width, term.cfg.history, term.cfg.scale, term.cfg.clip))
        start += term.width
    return tuple(entries)


def _spec_of(layout: tuple[LayoutEntry, ...]) -> ObsSpec:
    terms = tuple(entry.place for entry in layout)
    return ObsSpec((sum(term.width for term in terms),), terms=terms)


_OF_JOINTS = ("joint", "joint_magnitude", "action")
"""How terms mirror that hold a number a joint."""


def _joints_of(term: _Term, env: Env) -> list[int]:
    """The joint of each of a term's numbers; see `_OF_JOINTS`."""
    if term.cfg.func.mirror == "action":  # type: ignore[attr-defined]
        return env.actions.joints
    return env.robot.joint_ids(*term.cfg.params.get("joints", (".*",)))


def _mirror_of(term: _Term, env: Env) -> tuple[object, object]:
    """(ids, signs) of one value of a term."""
    kind = getattr(term.cfg.func, "mirror", None)
    if kind in _FIXED_MIRRORS:
        return _FIXED_MIRRORS[kind]
    if kind in _OF_JOINTS:
        ids, signs = env.mirror_of_joints(_joints_of(term, env))
        return ids, signs.abs() if kind == "joint_magnitude" else signs
    if kind == "joint_kinds":
        ids, _ = env.joint_mirror
        return torch.arange(term.dim).view(-1, len(ids))[:, ids.cpu()].flatten(), [1.0] * term.dim
    if kind in ("scan", "foot_scan"):
        return _mirror_of_scan(term, env, feet=kind == "foot_scan")
    if kind == "feet":
        return env.robot.mirror_feet, [1.0] * term.dim
    if kind == "same":
        return range(term.dim), [1.0] * term.dim
    raise KoboshiError(f"observation '{term.name}' does not say how it mirrors; decorate its function with @mirrored")


def _mirror_of_scan(term: _Term, env: Env, feet: bool) -> tuple[object, object]:
    """Of points whose y grows fastest, those of one foot after the other's."""
    usual = {name: p.default for name, p in signature(term.cfg.func).parameters.items()}
    given = usual | term.cfg.params
    rows, columns = counts(given["size"], given["resolution"])
    ids = torch.arange(rows * columns).view(rows, columns).flip(1).flatten()
    if feet:
        ids = (torch.as_tensor(env.robot.mirror_feet.copy())[:, None] * len(ids) + ids).flatten()
    return ids, [1.0] * term.dim
