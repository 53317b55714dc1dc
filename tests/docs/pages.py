"""What the tutorials' tests read from a page: files it creates, commands it runs, and what they must leave.

A fenced block with a `title` is a file of that name; one of ```bash``` is run, line by line. Comments say the rest:
`test-with` before a block, words that the test appends to each of its koboshi commands; after it `test-gives`, files
that must be there and whole, `test-figure FILE KEY LOW HIGH`, `test-same FILE FILE KEY` and `test-text FILE TEXT`.
`test-after PAGE`: the page goes on in the folder that another one left.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_PARTS = re.compile(
    r"<!--\s*test-(?P<check>\w+):\s*(?P<words>.*?)-->"
    r"|^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_INCLUDED = re.compile(r'--8<-- "(.+)"')


class File(NamedTuple):
    name: str
    text: str


class Command(NamedTuple):
    """`words` as printed; `added`: what the test appends."""

    words: list[str]
    added: list[str]


class Check(NamedTuple):
    """`kind`: gives, figure, same or text."""

    kind: str
    words: list[str]


class Page(NamedTuple):
    name: str
    after: str | None
    parts: list[File | Command | Check]


def page(path: Path) -> Page:
    """A tutorial, in its order."""
    after, added, parts = None, [], list[File | Command | Check]()
    for found in _PARTS.finditer(path.read_text()):
        check, words = found["check"], shlex.split(found["words"] or "")
        if check == "after":
            after = words[0]
        elif check == "with":
            added = words
        elif check is not None:
            parts.append(Check(check, words))
        else:
            parts += _block(found["language"], found["info"], _unindented(found["body"], found["indent"]), added)
            added = []
    return Page(path.name, after, parts)


def _block(language: str, info: str, body: str, added: list[str]) -> Iterator[File | Command]:
    title = re.search(r'title="(.+?)"', info)
    if title:
        included = _INCLUDED.fullmatch(body.strip())
        yield File(title[1], (ROOT / included[1]).read_text() if included else body)
    elif language == "bash":
        yield from (Command(words, added) for words in commands(body))


def _unindented(body: str, indent: str) -> str:
    return re.sub(f"^{indent}", "", body, flags=re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, comments left out; several may stand in a line behind `;`."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word != ";":
                words.append(word)
            elif words:
                found.append(words)
                words = []
    return found


class Printed(NamedTuple):
    page: str
    words: list[str]
    whole: bool
    """In a block of its own; within a line it may be a verb that is spoken of."""


def every_command() -> list[Printed]:
    """Each `koboshi …` command in the README and all pages, in blocks and within lines."""
    found: list[Printed] = []
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))):
        text = path.read_text()
        blocks = [_unindented(m[3], m[1]) for m in _FENCE.finditer(text) if m[2] in ("", "bash")]
        inline = re.findall(r"`(koboshi [^`]+)`", _FENCE.sub("", text))
        for each, whole in [*((b, True) for b in blocks), *((re.sub(r"\s+", " ", i), False) for i in inline)]:
            mine = (words for words in commands(each) if words[0] == "koboshi")
            found += [Printed(path.relative_to(ROOT).as_posix(), words, whole) for words in mine]
    return found
