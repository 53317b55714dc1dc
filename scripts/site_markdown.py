"""What the pages under docs/ use beyond plain Markdown: formulas, and a section of the README.

`$x^2$` within a line and `$$ … $$` as a paragraph become MathML, which browsers show without scripts or network.
A paragraph `{README: Heading}` becomes that section of README.md, so that its figures stand in one place.
"""

from __future__ import annotations

import re
from pathlib import Path

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from math_core import LatexToMathML

README = Path(__file__).parents[1] / "README.md"
DISPLAYED, INLINE = r"\$\$(.+?)\$\$", r"(?<![\\$\w])\$(?![\s$])([^$]+?)(?<!\s)\$(?!\w)"
ABOVE_ESCAPES = 185
"""Below code (190), so that `$x` in code stays, and above backslashes (180), which formulas are full of."""


class Formula(InlineProcessor):
    """A formula of LaTeX; one that cannot be read stops the build."""

    def __init__(self, pattern: str, md: Markdown, displayed: bool) -> None:
        super().__init__(pattern, md)
        self._displayed, self._convert = displayed, LatexToMathML(annotation=True)

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:  # noqa: N802 (Markdown's name)
        text = self.unescape(m[1]).strip()
        mathml = self._convert.convert_with_local_state(text, displaystyle=self._displayed)
        return self.md.htmlStash.store(mathml), m.start(0), m.end(0)


class ReadmeSection(Preprocessor):
    """`{README: Heading}` as what stands below `## Heading` there."""

    def run(self, lines: list[str]) -> list[str]:
        found: list[str] = []
        for line in lines:
            asked = re.fullmatch(r"\{README: (.+)\}", line)
            found += readme_section(asked[1]).splitlines() if asked else [line]
        return found


def readme_section(heading: str) -> str:
    """Its text, with paths as a page directly under docs/ sees them; links to code lose their target."""
    _, begins, rest = README.read_text().partition(f"\n## {heading}\n")
    if not begins:
        raise ValueError(f"README.md has no section '{heading}'")
    text = rest.partition("\n## ")[0].replace("](docs/", "](")
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?:src|examples|benchmarks)/[^)]*\)", r"\1", text)


class SiteExtension(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Markdown's name)
        md.preprocessors.register(ReadmeSection(md), "readme", 100)
        md.inlinePatterns.register(Formula(DISPLAYED, md, True), "displayed", ABOVE_ESCAPES + 1)
        md.inlinePatterns.register(Formula(INLINE, md, False), "formula", ABOVE_ESCAPES)


def makeExtension(**settings: object) -> SiteExtension:  # noqa: N802 (Markdown's name)
    return SiteExtension(**settings)
