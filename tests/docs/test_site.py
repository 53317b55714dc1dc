"""The site: it builds without a complaint, shows formulas without a network, and has every module's docstrings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import markdown
import pytest
from pages import DOCS, ROOT

import koboshi
from koboshi.bench.worlds import WORLDS

sys.path.insert(0, str(ROOT / "scripts"))
from site_markdown import makeExtension, readme_section  # noqa: E402

PACKAGE = Path(koboshi.__file__).parent


def rendered(text: str) -> str:
    return markdown.markdown(text, extensions=[makeExtension()])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, of a copy, so that nothing is written beside the pages."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(DOCS, folder / "docs")  # where these two are links, they lead the site back here
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for name in ("src", "examples"):
        (folder / name).symlink_to(ROOT / name)
    found = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return folder / "site"


def test_every_page_is_built_and_asks_for_no_network(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        html = (site / page.relative_to(DOCS)).with_suffix(".html").read_text()
        fetched = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:[^"]+)"', html)
        assert not [url for url in fetched if "canonical" not in url], f"{page} fetches {fetched}"
        assert "$$" not in html, f"{page} shows a formula as text"


def test_formulas_and_included_text_are_there(site: Path) -> None:
    stacked = (site / "method" / "stacked_training.html").read_text()
    assert stacked.count('<math display="block"') >= 5 and "<mfrac>" in stacked
    assert "quadruped" in (site / "tutorials" / "own_robot.html").read_text()
    assert "LF_HAA" in (site / "tutorials" / "own_robot.html").read_text()
    assert "survival, mean / worst joint" in (site / "results.html").read_text()


def test_docstrings_and_fields_are_there(site: Path) -> None:
    faults = (site / "api" / "faults.html").read_text()
    assert "One fault of one joint." in faults and 'id="koboshi.faults.kinds.FaultKind"' in faults
    assert "Above 0; 1 is dead." in faults


def test_every_module_has_its_place() -> None:
    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    listed = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    modules = {path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")}
    wanted = {".".join(path.parts) for path in modules if not path.name.startswith("_")}
    wanted |= {f"koboshi.{path.parts[1]}" for path in modules if len(path.parts) == 3 and path.name == "__init__"}
    assert listed == wanted, f"missing: {sorted(wanted - listed)}; gone: {sorted(listed - wanted)}"


def test_a_wrong_link_stops_the_build(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    text = (tmp_path / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(text[: text.index("nav:")])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[there](nowhere.md)\n")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode != 0 and "does not exist" in found.stdout + found.stderr


def test_formulas() -> None:
    html = rendered(r"a $x_1 \le 2$ and `$code` and 3 $ or 4 $, \$5")
    assert html.count("<math") == 1 and "<msub>" in html and "<code>$code</code>" in html and "3 $ or 4 $" in html
    assert '<math display="block"' in rendered("$$\na_b * c_d * e\n$$") and "<em>" not in rendered("$a * b * c$ *")


def test_a_formula_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(Exception, match="nonsense"):
        rendered(r"$\nonsense{3}$")


def test_the_worlds_on_the_page_are_those_that_are_walked() -> None:
    page = (ROOT / "docs/method/benchmark.md").read_text()
    for name, world in WORLDS.items():
        assert f"| `{name}` | {world.about} |" in page, name


def test_a_section_of_the_readme() -> None:
    section = readme_section("What was measured")
    assert section.strip() and "](docs/" not in section and "](src/" not in section and "## " not in section
    with pytest.raises(ValueError, match="README.md has no section 'Nowhere'"):
        readme_section("Nowhere")
