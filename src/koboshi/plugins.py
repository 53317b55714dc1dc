"""Things from outside: entry points of installed packages, and modules that the user names.

A package offers tasks and robots as entry points, each of them a function: of group `koboshi.tasks` one that returns
a `TaskCfg`, of `koboshi.robots` one that returns a `Robot`. A module (a Python file or an importable name) offers
them as `TASKS: dict[str, Callable[[], TaskCfg]]` and `ROBOTS: dict[str, Robot]`, kinds of fault as
`FAULTS: dict[str, FaultKind]` (of `faults.kinds`), and settings of its own that may stand where koboshi's do,
`ACTORS: list[type]` (`nets.actors.ActorCfg`) and `AGENTS: list[type]` (`AgentCfg` of `algos.learner`). Nothing else
of them is looked at, and nothing is loaded that was not installed or named on purpose.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from koboshi import config, robots, tasks
from koboshi.errors import KoboshiError
from koboshi.faults import kinds
from koboshi.nets.actors import AnyActorCfg
from koboshi.robots import Robot
from koboshi.tasks import MakeTask, TaskCfg
from koboshi.tasks.task import AgentCfg

TASK_GROUP, ROBOT_GROUP = "koboshi.tasks", "koboshi.robots"
_SETTINGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "ACTORS": (AnyActorCfg, ("groups", "loss_groups", "build")),
    "AGENTS": (AgentCfg, ("trainer", "network", "mirror_groups", "build")),
}
"""What a module calls them -> the union that they join, and what each must have."""
_ENTRY = "entry point "
_loaded: dict[str, None] = {}
"""What was added in this process, in this order: adding it again does nothing."""


def load(modules: Iterable[str] = ()) -> None:
    """Adds the robots and tasks of installed packages, then what `modules` offer, each a file or a module's name.

    KoboshiError where a module is missing, fails, offers nothing, or brings a name that is taken. An installed
    robot that cannot be had is named on stderr: what does not need it must go on working.
    """
    for entry in entry_points(group=ROBOT_GROUP):
        try:
            _once(_ENTRY + entry.value, lambda e=entry: robots.add(_made(e, Robot)))
        except KoboshiError as error:
            print(f"koboshi: {error}", file=sys.stderr)
    for entry in entry_points(group=TASK_GROUP):
        _once(_ENTRY + entry.value, lambda e=entry: tasks.add(e.name, lambda: _made(e, TaskCfg)))
    for module in modules:
        where = str(Path(module).resolve()) if _is_file(module) else module
        _once(where, lambda m=module: _add(m, _module(m)))


def _once(name: str, add: Any) -> None:
    if name not in _loaded:
        add()
        _loaded[name] = None


def named() -> list[str]:
    """The modules that this process was given: a process that it spawns needs `load(named())`."""
    return [name for name in _loaded if not name.startswith(_ENTRY)]


def _made(entry: EntryPoint, kind: type) -> Any:
    """What an entry point's function returns; KoboshiError where that is no `kind`."""
    what = f"entry point '{entry.name}' ({entry.value})"
    with _failing(what):
        made = entry.load()()
    if not isinstance(made, kind):
        raise KoboshiError(f"{what} gives a {type(made).__name__}, and a {kind.__name__} is wanted")
    return made


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """What somebody else's code raises, as one line that says whose it is."""
    try:
        yield
    except KoboshiError:
        raise
    except Exception as error:
        raise KoboshiError(f"{what} cannot be loaded: {type(error).__name__}: {error}") from error


def _is_file(module: str) -> bool:
    return module.endswith(".py") or "/" in module


def _module(module: str) -> ModuleType:
    """The module of that file or name, run once."""
    what = f"module {module}"
    if _is_file(module):
        return _from_file(Path(module), what)
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise KoboshiError(f"no {what} can be imported; a file is given by its path, as in --module ./{module}.py")
    with _failing(what):
        return importlib.import_module(module)


def _from_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise KoboshiError(f"no file {path} (given by --module)")
    # Not the bare stem, which may be a library's name; and the same each time, for it is in saved configurations.
    name = f"outside_{path.stem}"
    if name in sys.modules and Path(str(sys.modules[name].__file__)).resolve() != path.resolve():
        raise KoboshiError(f"two modules from outside are called {path.stem}; rename {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise KoboshiError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    try:
        with _failing(what):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _add(name: str, module: ModuleType) -> None:
    """Adds what a module offers, all or nothing."""
    new_robots: dict[str, Robot] = _table(name, module, "ROBOTS", dict)
    new_tasks: dict[str, MakeTask] = _table(name, module, "TASKS", dict)
    new_faults: dict[str, kinds.FaultKind] = _table(name, module, "FAULTS", dict)
    settings = [(table, cls) for table in _SETTINGS for cls in _table(name, module, table, list)]
    if not (new_robots or new_tasks or new_faults or settings):
        raise KoboshiError(f"module {name} has none of TASKS, ROBOTS, FAULTS, ACTORS, AGENTS")
    for table, cls in settings:
        _check_settings(name, table, cls)
    for key, robot in new_robots.items():
        if not isinstance(robot, Robot) or robot.name != key:
            found = f"the robot '{robot.name}'" if isinstance(robot, Robot) else f"a {type(robot).__name__}"
            raise KoboshiError(f"ROBOTS['{key}'] of module {name} is {found}, and a Robot of that name is wanted")
        if key in robots.known():
            raise KoboshiError(f"module {name}: the robot name '{key}' is taken; robots: {', '.join(robots.known())}")
    for key, make in new_tasks.items():
        if not callable(make):
            raise KoboshiError(f"TASKS['{key}'] of module {name} is a {type(make).__name__}, and a function is wanted")
        if key in tasks.known():
            raise KoboshiError(f"module {name}: the task name '{key}' is taken; tasks: {', '.join(tasks.known())}")
    for key, kind in new_faults.items():
        if not isinstance(kind, kinds.FaultKind):
            found = type(kind).__name__
            raise KoboshiError(f"FAULTS['{key}'] of module {name} is a {found}, and a FaultKind is wanted")
        kinds.check_new(key, kind)
    for table, cls in settings:
        config.also(_SETTINGS[table][0], cls)
    for robot in new_robots.values():
        robots.add(robot)
    for key, make in new_tasks.items():
        tasks.add(key, make)
    for key, kind in new_faults.items():
        kinds.add(key, kind)


def _check_settings(name: str, table: str, cls: Any) -> None:
    hint, needed = _SETTINGS[table]
    config.check_choice(hint, cls)
    there = {field.name for field in fields(cls)} | set(dir(cls))
    missing = [attribute for attribute in needed if attribute not in there]
    if missing:
        raise KoboshiError(f"{table} of module {name}: {cls.__name__} has no {', '.join(missing)}")


def _table(name: str, module: ModuleType, attribute: str, kind: type) -> Any:
    table = getattr(module, attribute, kind())
    if not isinstance(table, kind):
        raise KoboshiError(f"{attribute} of module {name} is a {type(table).__name__}, and a {kind.__name__} is wanted")
    return table
