"""The command line: verbs that parse, call one function and print."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from koboshi.cli import benchmarks, building, comparing, deploying, judging, watching  # noqa: F401 (each adds its verbs)
from koboshi.cli.app import app
from koboshi.errors import KoboshiError


def _module_first(words: list[str]) -> list[str]:
    """The command line with every --module before the verb, where typer looks for it."""
    modules: list[str] = []
    rest: list[str] = []
    queue = iter(words)
    for word in queue:
        if word == "--":
            rest += [word, *queue]
        elif word == "--module":
            modules += [word, *([value] if (value := next(queue, None)) is not None else [])]
        elif word.startswith("--module="):
            modules.append(word)
        else:
            rest.append(word)
    return modules + rest


def _wait_politely() -> None:
    """Torch's threads spin only shortly while they wait for one another; read when torch is loaded, by the verbs.

    As they come they spin on, and where another process wants a core too, each waits for one that does not run:
    beside one busy process training took 2.6 times as long, so 1.8 times, and alone the same.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def main() -> None:
    """Runs a verb."""
    _wait_politely()
    run(lambda: app(_module_first(sys.argv[1:])))


def run(work: Callable[[], object]) -> None:
    """Does it; what the user can mend is one line on stderr and exit code 2."""
    try:
        work()
    except KoboshiError as error:
        # What other libraries say inside it may be several lines.
        print("koboshi:", *str(error).split(), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"koboshi: no space left to write {error.filename or 'a file'}", file=sys.stderr)
        sys.exit(2)
