"""Configuration as a tree of dataclasses: overriding, saving, loading and comparing it.

A tree is made of dataclasses (frozen or not), dicts of them (terms, by name), dicts of plain values, and
leaves. Every function returns a new tree and leaves the one it was given as it was. A key is the path from
the root, `env.events.push.params.speed`; a term's name is one step of it.

Where a field (or a dict's value) may be one of several dataclasses, saved data and overrides name the one
meant under the key `type`: `agent: {type: PPOCfg, …}`, `agent.type=DistillationCfg`. Naming another one than
is there starts from that one's defaults. `also` adds such a one from outside.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import json
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from koboshi.errors import KoboshiError
from koboshi.runs import write_atomic

Config = TypeVar("Config")
TYPE = "type"
"""The key that names one of several dataclasses."""
_ALSO: dict[type, list[type]] = {}
"""The first of several dataclasses -> those from outside that may stand in their place."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number, as YAML 1.2 does and PyYAML does not."""


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes the text '1e-3', which `_Loader` would read as a number."""


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def check_choice(hint: Any, other: Any) -> None:
    """KoboshiError where `other` cannot be one more of the dataclasses of `hint`."""
    if not (isinstance(other, type) and dataclasses.is_dataclass(other)):
        raise KoboshiError(f"settings from outside are dataclasses, and {other!r} is none")
    # Files name settings by their class: a second one of that name would take the place of the first.
    if any(each.__name__ == other.__name__ and each is not other for each in _dataclasses_in(hint)):
        raise KoboshiError(f"there are settings called {other.__name__} already")


def also(hint: Any, other: type) -> None:
    """From now on the dataclass `other` may stand wherever one of the union `hint` may, in files and overrides too."""
    check_choice(hint, other)
    if other not in _dataclasses_in(hint):
        _ALSO.setdefault(get_args(hint)[0], []).append(other)


def override(cfg: Config, assignments: Sequence[str]) -> Config:
    """A copy of `cfg` with each `key=value` applied in turn, then validated.

    A value is YAML: a scalar, a list, or a map, which is applied key by key. It must fit the field's
    annotation; under `Any` it must be of the present value's type. `null` removes a term from a dict of
    terms and sets an Optional field to None. After the last one, `validate()` of each dataclass that has
    it is called, leaves first. KoboshiError for an unknown key, a value that does not fit, a function.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise KoboshiError(f"'{assignment}' is not an override; write key=value, as in env.num_envs=2048")
        try:
            value = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
        except yaml.YAMLError:
            value = text
        cfg = _update(cfg, Any, "", key.split("."), value, text)
    _validate(cfg)
    return cfg


def from_dict(base: Config, data: Mapping[str, Any]) -> Config:
    """The tree that `data` (of `to_dict`) was saved from, given a `base` of the same shape.

    Functions stay base's. A term that data lacks is removed; a field that data lacks keeps base's value.
    KoboshiError for a key that base lacks and for a value that does not fit.
    """
    cfg: Config = _restore(base, Any, "", data)
    _validate(cfg)
    return cfg


def to_dict(cfg: Any) -> Any:
    """`cfg` as plain data: tuples and sets as lists, functions as 'module.qualname', paths as strings."""
    return _plain(cfg, Any)


def _plain(cfg: Any, hint: Any) -> Any:
    """`cfg`, annotated with `hint`, as plain data."""
    if _is_dataclass(cfg):
        kind = {TYPE: type(cfg).__name__} if _is_choice(hint) else {}
        return kind | {name: _plain(value, _child_hint(cfg, hint, name)) for name, value in _children(cfg).items()}
    if isinstance(cfg, Mapping):
        return {key: _plain(value, _child_hint(cfg, hint, key)) for key, value in cfg.items()}
    if isinstance(cfg, list | tuple):
        return [to_dict(value) for value in cfg]
    if isinstance(cfg, set | frozenset):
        return sorted(to_dict(value) for value in cfg)
    if isinstance(cfg, enum.Enum):
        return to_dict(cfg.value)
    if cfg is None or type(cfg) in (bool, int, float, str):
        return cfg
    if callable(cfg):
        named = cfg if hasattr(cfg, "__qualname__") else type(cfg)
        return f"{named.__module__}.{named.__qualname__}"
    return str(cfg)


def save_yaml(path: str | os.PathLike[str], cfg: Any) -> None:
    """Writes the tree as YAML, whole or not at all."""
    write_atomic(path, yaml.dump(to_dict(cfg), Dumper=_Dumper, sort_keys=False).encode())


def load_yaml(path: str | os.PathLike[str], base: Config) -> Config:
    """The tree that `save_yaml` wrote; see `from_dict`."""
    try:
        data = yaml.load(Path(path).read_bytes(), _Loader)  # noqa: S506 (a SafeLoader)
    except (FileNotFoundError, IsADirectoryError):
        raise KoboshiError(f"no configuration {path}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise KoboshiError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise KoboshiError(f"{path} holds no configuration (expected a map, got {_show(data)})")
    return from_dict(base, data)


def diff(a: Any, b: Any) -> list[str]:
    """What differs, a line a key: 'env.num_envs: 1024 -> 2048', 'env.events.push: removed'."""
    return list(_differences("", to_dict(a), to_dict(b)))


def _differences(key: str, a: Any, b: Any) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in [*a, *(name for name in b if name not in a)]:
            if name not in b:
                yield f"{_join(key, name)}: removed"
            elif name not in a:
                yield f"{_join(key, name)}: added"
            else:
                yield from _differences(_join(key, name), a[name], b[name])
    elif a != b:
        yield f"{key}: {_show(a)} -> {_show(b)}"


def _update(node: Any, hint: Any, key: str, path: Sequence[str], value: Any, text: str | None) -> Any:
    """`node` (found at `key`, annotated with `hint`) with `value` put at `path` below it."""
    if not path:
        return _assign(node, hint, key, value, text)
    name, rest = path[0], path[1:]
    if name == TYPE and not rest and _is_choice(hint):
        return _of_type(node, hint, key, value, {})
    if node is None:
        node = _default(hint, key)
    child, child_hint, child_key = _child(node, hint, key, name)
    if not rest and value is None and isinstance(node, Mapping) and _is_term(child, child_hint):
        return {other: term for other, term in node.items() if other != name}
    return _replace(node, name, _update(child, child_hint, child_key, rest, value, text))


def _assign(node: Any, hint: Any, key: str, value: Any, text: str | None) -> Any:
    """`value` in the place of `node`; a map is applied key by key where the keys are fixed."""
    if callable(node) and not _is_dataclass(node):
        raise KoboshiError(f"{key} is a function ({to_dict(node)}) and cannot be overridden; change it in the task")
    if value is None and type(None) in _members(hint):
        return None
    if isinstance(value, dict):
        node, value = _started(node, hint, key, value)
    if isinstance(value, dict) and _has_fixed_keys(node, hint):
        for name, part in value.items():
            node = _update(node, hint, key, [str(name)], part, None)
        return node
    if _is_dataclass(node):
        raise KoboshiError(f"{key}: expected a map of {', '.join(_children(node))}, got {_show(value)}")
    return _check(node, hint, key, value, text)


def _restore(node: Any, hint: Any, key: str, data: Any) -> Any:
    """`node` with saved `data` put over it."""
    if callable(node) and not _is_dataclass(node) or data == _plain(node, hint):
        return node
    if isinstance(data, dict):
        node, data = _started(node, hint, key, data)
    if not (isinstance(data, dict) and _has_fixed_keys(node, hint)):
        return _assign(node, hint, key, data, None)
    for name, part in data.items():
        child, child_hint, child_key = _child(node, hint, key, name)
        node = _replace(node, name, _restore(child, child_hint, child_key, part))
    if isinstance(node, Mapping):
        terms = {name: _is_term(child, _child_hint(node, hint, name)) for name, child in node.items()}
        node = {name: child for name, child in node.items() if name in data or not terms[name]}
    return node


def _started(node: Any, hint: Any, key: str, data: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What the map `data` is to be put over, and the rest of `data`: a dataclass of the type that it names."""
    rest = dict(data)
    if _is_choice(hint) and TYPE in data:
        return _of_type(node, hint, key, rest.pop(TYPE), rest), rest
    if node is None and len(_dataclasses_in(hint)) == 1:
        return _new(_dataclasses_in(hint)[0], key, rest), rest
    return (_default(hint, key) if node is None and _dataclasses_in(hint) else node), rest


def _of_type(node: Any, hint: Any, key: str, name: Any, data: Mapping[str, Any]) -> Any:
    """`node` if it is of the type `name`, else a new one of that type (fields without a default from `data`)."""
    choices = {cls.__name__: cls for cls in _dataclasses_in(hint)}
    if name not in choices:
        valid = " or ".join(map(repr, choices))
        raise KoboshiError(f"{_join(key, TYPE)}: expected {valid}, got {_show(name)}")
    return node if type(node) is choices[name] else _new(choices[name], key, data)


def _new(cls: Any, key: str, data: Mapping[str, Any]) -> Any:
    """A `cls` with its defaults; what has none is taken from `data`, and refused where that lacks it too."""
    given = {}
    for field in dataclasses.fields(cls):
        if not field.init or _has_default(field):
            continue
        child_key, hint = _join(key, field.name), _hints(cls)[field.name]
        if field.name not in data:
            raise KoboshiError(f"{child_key} is missing; {cls.__name__} has no default for it")
        part = data[field.name]
        if isinstance(part, dict) and _dataclasses_in(hint):
            node, rest = _started(None, hint, child_key, part)
            given[field.name] = _restore(node, hint, child_key, rest)
        elif dataclasses.is_dataclass(hint):
            raise KoboshiError(f"{child_key}: expected {_name(hint)}, got {_show(part)}")
        else:
            given[field.name] = _check(None, hint, child_key, part, None)
    return cls(**given)


def _check(node: Any, hint: Any, key: str, value: Any, text: str | None) -> Any:
    """`value` as the type that `hint` says, or, under Any, as the type of `node`, which is there now."""
    hint = _hint_of(node) if hint is Any else hint
    adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    # As JSON, since its strict mode takes a list for a tuple and a string for a Path, but no 1.5 for an int.
    # The text itself comes second: a string may look like a number, a date or a boolean.
    for candidate in (value,) if text is None else (value, text):
        try:
            return adapter.validate_json(json.dumps(candidate, default=str), strict=True)
        except ValidationError:
            continue
    raise KoboshiError(f"{key}: expected {_name(hint)}, got {_show(value)}")


def _child(node: Any, hint: Any, key: str, name: str) -> tuple[Any, Any, str]:
    """The child `name` of `node`: its value, annotation and key."""
    children = _children(node)
    if name not in children:
        raise _no_key(node, key, name)
    return children[name], _child_hint(node, hint, name), _join(key, name)


def _child_hint(node: Any, hint: Any, name: str) -> Any:
    if _is_dataclass(node):
        cls: Any = type(node)
        return _hints(cls)[name]
    for member in _members(hint):
        if len(get_args(member)) == 2 and issubclass(get_origin(member), Mapping):
            return get_args(member)[1]
    return Any


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _children(node: Any) -> Mapping[str, Any]:
    if _is_dataclass(node):
        return {field.name: getattr(node, field.name) for field in _fields(node)}
    return node if isinstance(node, Mapping) else {}


def _replace(node: Any, name: str, value: Any) -> Any:
    return dataclasses.replace(node, **{name: value}) if _is_dataclass(node) else {**node, name: value}


def _no_key(node: Any, key: str, name: str) -> KoboshiError:
    """The error for an unknown key; it guesses among the siblings first, then among all that lies deeper."""
    names = list(_children(node))
    near = difflib.get_close_matches(name, names, n=1) or difflib.get_close_matches(name, _paths(node), n=1)
    guess = f" did you mean '{_join(key, near[0])}'?" if near else ""
    return KoboshiError(f"no key '{_join(key, name)}';{guess} keys: {', '.join(map(str, names)) or '(none)'}")


def _paths(node: Any, key: str = "") -> Iterator[str]:
    for name, child in _children(node).items():
        yield _join(key, name)
        yield from _paths(child, _join(key, name))


def _default(hint: Any, key: str) -> Any:
    """The dataclass that an Optional field annotated with `hint` holds where it is not None."""
    choices = _dataclasses_in(hint)
    if len(choices) > 1:
        raise KoboshiError(f"{key} is null; say which {TYPE} it is to be: {', '.join(c.__name__ for c in choices)}")
    if not choices:
        raise KoboshiError(f"{key} is null and has no keys")
    return _new(choices[0], key, {})


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _has_fixed_keys(node: Any, hint: Any) -> bool:
    """Dataclasses, dicts of terms and dicts of Any (parameters) take no new keys; a dict[str, float] does."""
    if not isinstance(node, Mapping):
        return _is_dataclass(node)
    value_hint = _child_hint(node, hint, "")
    return value_hint is Any or bool(_dataclasses_in(value_hint))


def _is_choice(hint: Any) -> bool:
    """Whether several dataclasses may stand there, so that data must name the one meant."""
    return len(_dataclasses_in(hint)) > 1


def _is_term(node: Any, hint: Any) -> bool:
    return _is_dataclass(node) or bool(_dataclasses_in(hint))


def _is_dataclass(node: Any) -> bool:
    return dataclasses.is_dataclass(node) and not isinstance(node, type)


def _fields(node: Any) -> list[dataclasses.Field[Any]]:
    """The fields that a constructor takes; the others are derived."""
    return [field for field in dataclasses.fields(node) if field.init]


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    members = get_args(hint)
    return members + tuple(other for known in members for other in _ALSO.get(known, ()))


def _dataclasses_in(hint: Any) -> list[Any]:
    return [member for member in _members(hint) if isinstance(member, type) and dataclasses.is_dataclass(member)]


def _hint_of(value: Any) -> Any:
    """The annotation that `value` would have: tuple[float, ...] for (0.0, 1.0)."""
    if value is None:
        return Any
    if isinstance(value, list | tuple) and value:
        item: Any = Union[tuple(_hint_of(each) for each in value)]  # noqa: UP007 (of a computed tuple)
        return tuple[item, ...] if isinstance(value, tuple) else list[item]
    return type(value)


def _name(hint: Any) -> str:
    """An annotation as a person would say it."""
    if hint is type(None):
        return "null"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if len(_members(hint)) > 1:
        return " or ".join(map(_name, _members(hint)))
    if get_args(hint):
        args = ", ".join("..." if arg is ... else _name(arg) for arg in get_args(hint))
        return f"{getattr(get_origin(hint), '__name__', hint)}[{args}]"
    return getattr(hint, "__name__", str(hint))


def _show(value: Any) -> str:
    return "null" if value is None else repr(value)


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _validate(node: Any) -> None:
    """Calls `validate()` of every dataclass in the tree that has it, leaves first."""
    items: Any = node if isinstance(node, list | tuple) else _children(node).values()
    for child in items:
        _validate(child)
    if _is_dataclass(node) and callable(getattr(node, "validate", None)):
        node.validate()
