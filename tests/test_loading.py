"""Nothing that koboshi loads can run code: no pickle, no unsafe YAML, no eval anywhere in it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import koboshi

FILES = sorted(Path(koboshi.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    ("torch", "load"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("yaml", "load_all"),
    ("pd", "read_pickle"),
}


def unsafe(tree: ast.AST) -> list[str]:
    """What in a syntax tree could run code that a file holds."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        function, keywords = node.func, {k.arg: ast.unparse(k.value) for k in node.keywords}
        if isinstance(function, ast.Name) and function.id in CALLS:
            found.append(function.id)
        if isinstance(function, ast.Attribute):
            owner = ast.unparse(function.value)
            if (owner, function.attr) in METHODS or keywords.get("allow_pickle") == "True":
                found.append(ast.unparse(node))
            # yaml.load only with the loader of koboshi.config, a SafeLoader.
            loader = ast.unparse(node.args[1]) if len(node.args) > 1 else keywords.get("Loader")
            if (owner, function.attr) == ("yaml", "load") and loader not in ("_Loader", "yaml.SafeLoader"):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FILES[0].parent).as_posix())
def test_loading_never_runs_code(path: Path) -> None:
    assert unsafe(ast.parse(path.read_text())) == []


RUNS_MODULES = {"importlib.import_module", "spec.loader.exec_module", "runpy.run_path", "runpy.run_module"}


def test_only_plugins_run_modules_by_name() -> None:
    """Those that the user names or installed, and MuJoCo's own contexts; never one that a file names."""
    found = {
        path.relative_to(FILES[0].parent).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in RUNS_MODULES
    }
    assert found == {"plugins.py", "view/gl.py"}


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import loads", "torch.load('x')", "yaml.load(text)", "yaml.load(text, yaml.Loader)",
     "eval(text)", "np.load(path, allow_pickle=True)"],
)  # fmt: skip
def test_the_check_sees_it(code: str) -> None:
    assert unsafe(ast.parse(code))


def test_the_yaml_loader_is_a_safe_one() -> None:
    import yaml

    from koboshi import config
    from koboshi.errors import KoboshiError

    assert issubclass(config._Loader, yaml.SafeLoader)
    with pytest.raises((KoboshiError, yaml.YAMLError)):
        config.override({"a": 1}, ["a=!!python/object/apply:os.system ['true']"])
