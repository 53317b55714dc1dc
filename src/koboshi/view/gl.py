"""Finds an OpenGL that can draw without a screen, and draws with it.

`mujoco.Renderer` settles on one kind of OpenGL when `mujoco` is first imported, which is before anyone
knows that a picture is wanted; so the context is made here instead, whenever `mujoco` was imported.
"""

from __future__ import annotations

import functools
import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koboshi.errors import KoboshiError

_OFF = ("disable", "disabled", "off", "false", "0")
_ALIAS = {"glx": "glfw", "wgl": "glfw", "enable": "", "enabled": "", "on": "", "true": "", "1": ""}
_PROBE = """
import importlib, sys, mujoco
context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(16, 16)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
print("works")
"""


def _candidates() -> list[str]:
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    if asked in _OFF:
        return []
    system = platform.system()
    if system == "Linux":
        found = ["egl", "osmesa"] + (["glfw"] if os.environ.get("DISPLAY") else [])
    else:
        found = ["cgl", "glfw"] if system == "Darwin" else ["glfw"]
    asked = _ALIAS.get(asked, asked)
    return list(dict.fromkeys([asked, *found] if asked else found))


def _works(kind: str) -> bool:
    # In a process of its own: a broken driver may abort, and a loaded OpenGL cannot be unloaded.
    env = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"} | {"MUJOCO_GL": kind}
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE, kind], env=env, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return False
    return "works" in done.stdout


@functools.cache
def _probe(candidates: tuple[str, ...]) -> str | None:
    return next((kind for kind in candidates if _works(kind)), None)


def choose_gl() -> str | None:
    """The first OpenGL that works: the one in MUJOCO_GL, then EGL, then OSMesa; None where none does.

    Tries each in a process of its own (about half a second, once a process) and sets MUJOCO_GL to the answer.
    """
    kind = _probe(tuple(_candidates()))
    if kind is not None:
        os.environ["MUJOCO_GL"] = kind
    return kind


def gl_hint() -> str:
    """One line for a machine where `choose_gl` finds nothing."""
    asked = os.environ.get("MUJOCO_GL", "")
    if asked.lower().strip() in _OFF:
        return f"no pictures: MUJOCO_GL={asked} turns OpenGL off; unset it"
    if platform.system() != "Linux":
        return "no pictures: OpenGL does not start here; run from a session with a screen"
    return "no pictures: neither EGL nor OSMesa works; on Debian: apt install libegl1 libgl1 libosmesa6"


_ADDED = 2000
"""Shapes that a picture may have besides the model's own: shadows, markers, lights."""


class Offscreen:
    """Draws one model at one size into memory; use it as a context manager, from one thread.

    Raises KoboshiError with `gl_hint()` where no OpenGL works.
    """

    def __init__(self, model: Any, width: int, height: int) -> None:
        import mujoco

        kind = choose_gl()
        if kind is None:
            raise KoboshiError(gl_hint())
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        self.model = model
        # Every geom, however many stairs there are, and what is added to the picture.
        self.scene = mujoco.MjvScene(model, maxgeom=model.ngeom + _ADDED)
        self.option = mujoco.MjvOption()
        self._pixels = np.empty((height, width, 3), np.uint8)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._gl = importlib.import_module(f"mujoco.{kind}").GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def draw(self, data: Any, camera: Any, decorate: Callable[[Any], None] | None = None) -> NDArray[np.uint8]:
        """(height, width, 3): `data` seen by `camera`; `decorate` may add to the `MjvScene` first.

        Shadows and reflections are off: in software each costs more than all the rest.
        """
        import mujoco

        catbit = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self.model, data, self.option, None, camera, catbit, self.scene)
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        if decorate is not None:
            decorate(self.scene)
        self._gl.make_current()
        mujoco.mjr_render(self._rect, self.scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1].copy()

    def close(self) -> None:
        """Gives the graphics memory back; a second call does nothing."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None

    def __enter__(self) -> Offscreen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
