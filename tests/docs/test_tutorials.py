"""The tutorials' commands, run in order `pages` says what shortens them and what they must leave."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import DOCS, Check, Command, File, Page, page
from safetensors import safe_open

PAGES = {path.name: page(path) for path in sorted((DOCS / "tutorials").glob("*.md"))}
MAGIC = {".png": (0, b"\x89PNG"), ".mp4": (4, b"ftyp"), ".html": (0, b"<!doctype html>")}


def chains() -> Iterator[list[Page]]:
    """Pages that share a folder, in their order."""
    for first in PAGES.values():
        if first.after is None:
            yield [first, *(each for each in PAGES.values() if each.after == first.name)]


@pytest.fixture
def short_films(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no setting shortens: the demo's episodes, and how many pictures a film has, and how large they are."""
    from koboshi.stages import play
    from koboshi.view import video

    monkeypatch.setattr(play, "DEMO_SECONDS", 1.0)
    monkeypatch.setattr(video, "render_video", partial(video.render_video, fps=4, size=(320, 160)))


@pytest.mark.usefixtures("short_films")
@pytest.mark.parametrize("chain", list(chains()), ids=lambda chain: "+".join(each.name for each in chain))
def test_commands_do_what_the_page_says(
    chain: list[Page],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    koboshi: Callable[..., Any],
    restored: Callable[[], AbstractContextManager[None]],
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in (part for each in chain for part in each.parts):
        if isinstance(part, File):
            Path(part.name).write_text(part.text)
        elif isinstance(part, Command):
            with restored():  # a process knows no module that an earlier one was given
                _run(part, koboshi)
        else:
            _check(part)


def _run(command: Command, koboshi: Callable[..., Any]) -> None:
    program, *words = command.words
    if program == "python":
        runpy.run_path(words[0], run_name="__main__")
        return
    assert program == "koboshi", f"the tests run koboshi and python, not {program}"
    result = koboshi(*words, *command.added)
    assert result.code == 0, f"{' '.join(command.words)}: {result.err}"


def _check(check: Check) -> None:
    if check.kind == "gives":
        for name in check.words:
            _is_whole(Path(name))
    elif check.kind == "figure":
        name, key, low, high = check.words
        value = _figure(name, key)
        assert isinstance(value, int | float) and float(low) <= value <= float(high), f"{name}: {key} is {value}"
    elif check.kind == "same":
        one, other, key = check.words
        assert _figure(one, key) == _figure(other, key) is not None
    else:
        assert check.kind == "text", f"no check '{check.kind}'"
        assert check.words[1] in Path(check.words[0]).read_text()


def _figure(name: str, key: str) -> Any:
    value = json.loads(Path(name).read_text())
    for word in key.split("."):
        value = value[word]
    return value


def _is_whole(path: Path) -> None:
    """It is there, and is what its name says."""
    data = path.read_bytes()
    assert data, f"{path} is empty"
    if path.suffix in (".json", ".jsonl"):
        for text in data.decode().splitlines() if path.suffix == ".jsonl" else [data.decode()]:
            json.loads(text, parse_constant=lambda word: pytest.fail(f"{path} has {word}"))
    elif path.suffix == ".yaml":
        assert yaml.safe_load(data)
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            assert all(math.isfinite(file.get_tensor(name).double().abs().sum()) for name in file.keys())  # noqa: SIM118
    else:
        start, magic = MAGIC[path.suffix]
        assert data[start : start + len(magic)].lower() == magic.lower(), f"{path} is no {path.suffix}"


def test_each_page_is_tested() -> None:
    """A page that runs or checks nothing would pass unseen, and so would one that follows a page that is not there."""
    for each in PAGES.values():
        kinds = {type(part) for part in each.parts}
        assert Command in kinds and Check in kinds, f"{each.name} runs or checks nothing"
        assert each.after is None or PAGES[each.after].after is None


PAGE = """
<!-- test-after: other.md -->
<!-- test-with:
a.b=1 'c=[1,2]' -->
```bash
koboshi train x \\
    --name y ; koboshi list
```
<!-- test-gives: one two -->
```bash
koboshi list
```
    ```python title="mine.py"
    if x:
        y
    ```
```python
not_a_file()
```
"""


def test_what_is_read_from_a_page(tmp_path: Path) -> None:
    """Words are appended to the commands of the next block alone; an indented block loses its indent alone."""
    (tmp_path / "page.md").write_text(PAGE)
    added = ["a.b=1", "c=[1,2]"]
    assert page(tmp_path / "page.md") == Page(
        "page.md",
        "other.md",
        [
            Command(["koboshi", "train", "x", "--name", "y"], added),
            Command(["koboshi", "list"], added),
            Check("gives", ["one", "two"]),
            Command(["koboshi", "list"], []),
            File("mine.py", "if x:\n    y\n"),
        ],
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.json", "{"), ("a.json", '{"a": NaN}'), ("a.png", "PNG"), ("a.mp4", ""), ("b.mp4", "ftyp"), ("a.yaml", "")],
)
def test_a_file_that_is_not_whole_is_noticed(tmp_path: Path, name: str, data: str) -> None:
    (tmp_path / name).write_text(data)
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        _is_whole(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        _is_whole(tmp_path / "none.png")
