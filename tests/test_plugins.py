"""Tasks and robots from outside: found, used, and refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from koboshi import plugins, robots, tasks
from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1

TASK = """
from dataclasses import dataclass, replace
from koboshi.tasks.h1_walk import h1_walk

@dataclass(frozen=True)
class Mine:
    height: float = 0.3

def my_walk():
    task = h1_walk()
    return replace(task, name="my-walk", env=replace(task.env, robot=ROBOT))

TASKS = {"my-walk": my_walk}
"""
ROBOT = """
from dataclasses import replace
from koboshi.robots import UNITREE_H1

ROBOTS = {"my_robot": replace(UNITREE_H1, name="my_robot")}
"""


pytestmark = pytest.mark.usefixtures("as_before")


def write(path: Path, text: str) -> Path:
    path.write_text(text.replace("ROBOT)", "'my_robot')"))
    return path


def test_a_robot_and_a_task_in_files(tmp_path: Path) -> None:
    robot, task = write(tmp_path / "robot.py", ROBOT), write(tmp_path / "task.py", TASK)
    plugins.load([str(robot), str(task)])
    assert robots.find("my_robot").name == "my_robot"
    made = tasks.make_task("my-walk")
    assert made.name == "my-walk" and made.env.robot == "my_robot"
    plugins.load([str(task), str(robot)])  # a second time does nothing
    assert list(tasks.known())[-1] == "my-walk"


def test_a_module_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a_package_of_mine.py", ROBOT)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load(["a_package_of_mine"])
    assert "my_robot" in robots.known()


def test_every_verb_takes_modules_before_and_after_its_name(tmp_path: Path, koboshi: Callable[..., Any]) -> None:
    robot, task = write(tmp_path / "robot.py", ROBOT), write(tmp_path / "task.py", TASK)
    said = koboshi("--module", robot, "list", f"--module={task}", "--root", tmp_path / "runs").out
    assert "my-walk" in said.splitlines()[0] and "robot my_robot: " in said


def test_a_saved_run_asks_for_its_module(tmp_path: Path, fails: Callable[..., str]) -> None:
    from koboshi.runs import save_checkpoint

    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {}, {"kind": "policy", "task": "my-wolk"})
    said = fails("play", path, "--video", tmp_path / "v.mp4")
    assert said.startswith(f"{path} needs its task: no task 'my-wolk'")
    assert said.endswith("a task from outside needs its --module again")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "module {path} has none of TASKS, ROBOTS, FAULTS, ACTORS, AGENTS"),
        ("TASKS = {}", "module {path} has none of TASKS, ROBOTS, FAULTS, ACTORS, AGENTS"),
        ("import nothing_of_that_name", "module {path} cannot be loaded: ModuleNotFoundError: No module named"),
        ("TASKS = {", "module {path} cannot be loaded: SyntaxError"),
        ("1 / 0", "module {path} cannot be loaded: ZeroDivisionError: division by zero"),
        ("TASKS = ['a']", "TASKS of module {path} is a list, and a dict is wanted"),
        ("ACTORS = {}", "ACTORS of module {path} is a dict, and a list is wanted"),
        (
            "from koboshi.nets.actors import GruCfg as A\nclass GruCfg(A): pass\nACTORS = [GruCfg]",
            "called GruCfg already",
        ),
        ("from koboshi.nets.actors import GruCfg\nAGENTS = [GruCfg]", "GruCfg has no trainer, network, mirror_groups"),
        ("AGENTS = [3]", "settings from outside are dataclasses, and 3 is none"),
        ("TASKS = {'a': 3}", "TASKS['a'] of module {path} is a int, and a function is wanted"),
        ("ROBOTS = {'a': 3}", "ROBOTS['a'] of module {path} is a int, and a Robot of that name is wanted"),
        (ROBOT.replace('{"my_robot"', '{"a"'), "ROBOTS['a'] of module {path} is the robot 'my_robot', and a Robot of"),
        ("TASKS = {'h1-walk': print}", "module {path}: the task name 'h1-walk' is taken; tasks: h1-velocity, h1-"),
        (ROBOT.replace("my_robot", "unitree_h1"), "module {path}: the robot name 'unitree_h1' is taken; robots: "),
    ],
)
def test_a_module_that_cannot_be_used_is_named(tmp_path: Path, fails: Callable[..., str], text: str, says: str) -> None:
    path = write(tmp_path / "outside.py", text)
    before = (tasks.known(), robots.known())
    said = fails("list", "--module", path)
    assert says.format(path=path) in said
    assert (tasks.known(), robots.known()) == before
    # It may be mended and given again.
    write(path, ROBOT)
    plugins.load([str(path)])


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("none.py", "no file none.py (given by --module)"),
        ("some/where", "no file some/where (given by --module)"),
        ("no_such_module", "no module no_such_module can be imported; a file is given by its path"),
    ],
)
def test_a_module_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str], module: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in fails("list", "--module", module)


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first, second = write(tmp_path / "mine.py", ROBOT), write(tmp_path / "a" / "mine.py", TASK)
    plugins.load([str(first)])
    with pytest.raises(KoboshiError, match=f"two modules from outside are called mine; rename {second}"):
        plugins.load([str(second)])


def test_a_function_that_gives_something_else_is_named(tmp_path: Path) -> None:
    text = TASK.replace('name="my-walk", ', "")
    plugins.load([str(write(tmp_path / "a.py", text + "TASKS['nothing'] = dict"))])
    with pytest.raises(KoboshiError, match="task 'my-walk' gives a task named 'h1-walk', not a TaskCfg of that name"):
        tasks.make_task("my-walk")
    with pytest.raises(KoboshiError, match="task 'nothing' gives a dict, not a TaskCfg"):
        tasks.make_task("nothing")


def _entries(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    groups = {"task": plugins.TASK_GROUP, "robot": plugins.ROBOT_GROUP}
    found = [EntryPoint(f"my-{kind}", f"{__name__}:{value}", groups[kind]) for kind, value in values.items()]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [e for e in found if e.group == group])
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())


def _this_module() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(**globals())


def entry_task() -> tasks.TaskCfg:
    task = tasks.make_task("h1-walk")
    return replace(task, name="my-task", env=replace(task.env, robot="my-robot"))


def entry_robot() -> robots.Robot:
    return replace(UNITREE_H1, name="my-robot")


def test_entry_points_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    _entries(monkeypatch, task="entry_task", robot="entry_robot")
    plugins.load()
    assert tasks.make_task("my-task").env.robot == robots.find("my-robot").name
    plugins.load()


def test_a_task_that_cannot_be_loaded_disturbs_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    _entries(monkeypatch, task="nothing_of_that_name")
    plugins.load()
    tasks.make_task("h1-walk")
    with pytest.raises(KoboshiError, match=r"entry point 'my-task' \(.*\) cannot be loaded: AttributeError"):
        tasks.make_task("my-task")


def test_a_robot_that_cannot_be_had_disturbs_nobody_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _entries(monkeypatch, robot="entry_task", task="entry_task")
    plugins.load()
    said = capsys.readouterr().err
    assert said.startswith("koboshi: entry point 'my-robot' (") and said.endswith(
        "gives a TaskCfg, and a Robot is wanted\n"
    )
    assert "my-task" in tasks.known() and "my-robot" not in robots.known()
