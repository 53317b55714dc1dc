"""Each koboshi command that the README and the pages print can be parsed: its verb, its options, its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import commands, every_command

from koboshi import config
from koboshi.cli import _module_first, app
from koboshi.robots import UNITREE_H1
from koboshi.stages.play import parse_fault
from koboshi.tasks import TaskCfg, known, make_task

COMMANDS = {" ".join(each.words): each for each in every_command()}
STANDS_FOR = {"rust": "braking", "LF_KFE": "left_knee"}
"""Kinds of fault and joints that a page brings -> what is known here."""
Parse = Callable[[list[str]], dict[str, Any]]


@pytest.fixture
def parse(capsys: pytest.CaptureFixture[str]) -> Parse:
    """The arguments that a verb would be called with; ValueError with what the command line says against them."""
    called: list[dict[str, Any]] = []
    root: Any = typer.main.get_command(app)
    for verb in _leaves(root):
        verb.callback = lambda **arguments: called.append(arguments)
    root.callback = None

    def run(words: list[str]) -> dict[str, Any]:
        called.clear()
        with pytest.raises(SystemExit) as left:
            root.main(_module_first(words[1:]), prog_name="koboshi")
        if left.value.code or not called:
            raise ValueError(" ".join(capsys.readouterr().err.split()) or "no verb")
        return called[0]

    return run


def _leaves(command: Any) -> Iterator[Any]:
    if not hasattr(command, "commands"):
        yield command
    for each in getattr(command, "commands", {}).values():
        yield from _leaves(each)


def task_of(arguments: dict[str, Any]) -> TaskCfg:
    """The task that a command's settings are of: the one that it names, or that a run it names is of, or else H1's."""
    named = [arguments.get("task"), *arguments.values()]
    tasks = [str(each).partition("/")[0] for each in named if isinstance(each, str | Path)]
    return make_task(next((name for name in tasks if name in known()), "h1-walk"))


@pytest.mark.parametrize("text", COMMANDS)
def test_it_can_be_parsed(text: str, parse: Parse) -> None:
    printed = COMMANDS[text]
    try:
        arguments = parse([word for word in printed.words if word != "…"])
    except ValueError as error:
        if not printed.whole and "Missing argument" in str(error):
            return
        pytest.fail(f"{printed.page}: {text}: {error}")
    settings = arguments.get("overrides") or [word for word in arguments.get("paths") or [] if "=" in str(word)]
    for old, new in STANDS_FOR.items():
        settings = [each.replace(old, new) for each in settings]
    config.override(task_of(arguments), settings)
    for fault in arguments.get("fault") or []:
        parse_fault(fault, UNITREE_H1)


def test_there_are_commands_to_parse() -> None:
    pages = {each.page for each in COMMANDS.values()}
    assert {"README.md", "docs/guide.md", "docs/tutorials/first_h1.md"} <= pages and len(COMMANDS) > 25


def test_commands_of_a_block() -> None:
    text = "koboshi list ;  koboshi data D --split 0.1 0.2   # shares\n# nothing\nkoboshi check a \\\n  --out b"
    assert [" ".join(words) for words in commands(text)] == [
        "koboshi list",
        "koboshi data D --split 0.1 0.2",
        "koboshi check a --out b",
    ]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("koboshi trian h1-walk", "No such command 'trian'"),
        ("koboshi train", "Missing argument"),
        ("koboshi play a --vidio b", "No such option: --vidio"),
        ("koboshi data DATA --split 0.1", "requires 2 arguments"),
        ("koboshi list people", "is not one of"),
    ],
)
def test_a_wrong_one_is_noticed(wrong: str, says: str, parse: Parse) -> None:
    with pytest.raises(ValueError, match=says):
        parse(wrong.split())
