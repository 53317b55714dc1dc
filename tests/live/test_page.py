"""`koboshi view` in a real Chromium without a screen: what a viewer sees and does, and what others notice of it."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import koboshi
from koboshi.live.page import Page
from koboshi.live.tape import Tape
from koboshi.stages import live
from koboshi.tasks import TaskCfg

pytest.importorskip("viser", reason="the extra view is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CLIP = {"x": 380, "y": 190, "width": 330, "height": 440}
"""The middle of the scene, between the panels and below the browser's complaints."""
PATIENCE = 90_000
"""ms; a browser that draws in software on a busy machine is slow."""
SOFTWARE = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WINDOW = {"width": 1060, "height": 640}
FEW_PICTURES = "window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 400)"
SCALE = 0.5
"""Pixels of a picture in one of the window."""
COARSE = 0.02
"""m, in place of `page.CELL`: fewer triangles."""


def chromium(playwright: Any) -> str:
    own = playwright.chromium.executable_path
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = own if Path(own).exists() else next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no Chromium ({', '.join(names)}, or `playwright install chromium`)")
    return str(found)


class Served(NamedTuple):
    page: Page
    browser: Any
    folder: Path
    asked: list[str]
    """Addresses that the browser asked for."""

    def open(self) -> Any:
        tab = self.browser.new_page(viewport=WINDOW, device_scale_factor=SCALE)
        tab.set_default_timeout(PATIENCE)
        tab.add_init_script(FEW_PICTURES)
        tab.on("request", lambda request: self.asked.append(request.url))
        tab.goto(self.page.address)
        tab.wait_for_selector("[data-role=actor]")
        return tab


def _film_briefly(task: TaskCfg, tape: Tape, path: Path, film: Any = live.film) -> Path:
    """The first moments alone: how many lie between two clicks depends on the machine."""
    short = Tape(tape._names, tape._dt)
    for moment in tape._moments[:3]:
        short.add(moment)
    return film(task, short, path)


@pytest.fixture(scope="module")
def served(h1_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("view")
    with sync_api.sync_playwright() as playwright, pytest.MonkeyPatch.context() as patch:
        patch.setattr("koboshi.live.page.CELL", COARSE)
        patch.setattr(live, "film", _film_briefly)
        browser = playwright.chromium.launch(executable_path=chromium(playwright), args=SOFTWARE)
        page = live.view(h1_file, [], [], folder, port=0)
        yield Served(page, browser, folder, [])
        assert page.loop.error is None
        page.close()
        assert not page.loop.alive
        browser.close()


@pytest.fixture(scope="module")
def first(served: Served) -> Any:
    """One viewer for all tests, for a page takes long to open in software."""
    return served.open()


@pytest.fixture
def tab(served: Served, first: Any) -> Any:
    """The first viewer, of a whole robot that moves, whatever state a test before left."""
    served.page.loop.paused = False
    served.page.loop.ask(lambda session: session.reset())
    wait_for(lambda: not served.page.loop._session.faults)
    return first


def wait_for(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE / 1000
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def actor(tab: Any, wanted: str) -> None:
    tab.wait_for_function(f"document.querySelector('[data-role=actor]').innerText.includes('{wanted}')")


def press(tab: Any, name: str) -> None:
    # Not by the mouse, whose clicks wait for pictures, which may take seconds.
    tab.get_by_role("button", name=name, exact=True).first.dispatch_event("click")


def choose_joint(tab: Any, name: str) -> None:
    tab.get_by_label("joint", exact=True).click()
    tab.get_by_role("option", name=name, exact=True).click()


def picture(tab: Any) -> np.ndarray:
    """(h, w, 3) int, of the middle of the scene."""
    shot = tab.screenshot(clip=CLIP)
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def red(image: np.ndarray) -> int:
    """Pixels in the colour of a fault."""
    return int(((image[..., 0] > 120) & (image[..., 0] > 2 * image[..., 1:].max(-1))).sum())


def dark(image: np.ndarray) -> int:
    return int((image.max(-1) < 120).sum())


def test_open_break_a_knee_see_the_switch(served: Served, tab: Any) -> None:
    actor(tab, "healthy policy")
    wait_for(lambda: dark(picture(tab)) > 500)
    whole = picture(tab)
    assert red(whole) == 0 and len(np.unique(whole.reshape(-1, 3), axis=0)) > 50
    choose_joint(tab, "left_knee")
    press(tab, "break")
    actor(tab, "any specialist")
    tab.get_by_text("left_knee: torque loss", exact=True).first.wait_for()
    tab.wait_for_selector("[data-joint=left_knee][data-alarm='1']")
    tab.get_by_text("healthy policy → any specialist").first.wait_for()
    wait_for(lambda: red(picture(tab)) > 10)
    assert set(served.page.loop._session.faults) == {"left_knee"}
    shot = os.environ.get("KOBOSHI_VIEW_SHOT")
    if shot:
        tab.screenshot(path=shot)
    assert all(url.startswith((served.page.address, "blob:", "data:")) for url in served.asked), served.asked


def test_a_click_on_the_robot_picks_a_joint(served: Served, tab: Any) -> None:
    choose_joint(tab, "right_elbow")
    press(tab, "Pause")
    tab.get_by_text("paused").first.wait_for()
    wait_for(lambda: dark(picture(tab)) > 500)
    rows, columns = np.nonzero(picture(tab).max(-1) < 120)
    # Somewhere in the thick of the upper body.
    high = rows < np.quantile(rows, 0.4)
    x, y = (CLIP[a] + np.median(found[high]) / SCALE for a, found in (("x", columns), ("y", rows)))
    tab.mouse.click(x, y)
    box = tab.get_by_label("joint", exact=True)
    wait_for(lambda: box.input_value() != "right_elbow")
    # Which of them hangs before the others depends on the moment of the stride.
    assert re.fullmatch("torso|(left|right)_shoulder_(pitch|roll|yaw)", box.input_value())
    press(tab, "Go on")
    wait_for(lambda: not served.page.loop.paused)


def test_controls_reach_the_session(served: Served, tab: Any) -> None:
    session = served.page.loop._session

    def enter(label: str, text: str) -> None:
        box = tab.locator(f"xpath=//label[.='{label}']/following::input[@inputmode='decimal'][1]")
        box.fill(text)
        box.press("Enter")

    enter("forward, m/s", "0.3")
    wait_for(lambda: session.command[0] == pytest.approx(0.3))
    enter("payload, kg", "8")
    wait_for(lambda: session.world["payload"] == 8.0)
    enter("friction", "0.5")
    wait_for(lambda: session.world["friction"] == 0.5)
    enter("gains", "0.9")
    wait_for(lambda: session.world["gains"] == 0.9)
    press(tab, "As the model says")
    wait_for(lambda: all(session.world[name] == q.nominal for name, q in session.quantities.items()))
    press(tab, "Stand still")
    wait_for(lambda: session.command == (0.0, 0.0, 0.0))
    press(tab, "left")
    tab.get_by_text("shoved at 0.6 m/s").first.wait_for()
    enter("speed", "0.5")
    wait_for(lambda: served.page.loop.speed == 0.5)
    enter("speed", "1")
    wait_for(lambda: served.page.loop.speed == 1.0)
    tab.get_by_label("controller", exact=True).click()
    tab.get_by_role("option", name="h1_walk, healthy policy alone", exact=True).click()
    tab.get_by_text("nobody listens to a detector now").wait_for()
    tab.get_by_label("controller", exact=True).click()
    tab.get_by_role("option", name="h1_walk", exact=True).click()
    tab.wait_for_selector("[data-joint=left_knee]")
    choose_joint(tab, "torso")
    for button, kind in (("weaken", "torque_loss"), ("lock", "locked"), ("blind", "encoder_freeze")):
        press(tab, button)
        wait_for(lambda kind=kind: "torso" in session.faults and session.faults["torso"].kind == kind)
    press(tab, "Heal all joints")
    wait_for(lambda: not session.faults)
    press(tab, "Reset")
    tab.get_by_text("a whole robot").first.wait_for()
    # What is typed figure by figure lies outside the range at first.
    box = tab.locator("xpath=//label[.='friction']/following::input[@inputmode='decimal'][1]")
    box.fill("")
    box.press_sequentially("0.7", delay=50)
    wait_for(lambda: session.world["friction"] == 0.7)
    enter("friction", "1")
    assert tab.get_by_text("That cannot be").count() == 0
    turn = tab.locator("xpath=//label[.='turn left, rad/s']/following::*[@data-disabled='true'][1]")
    tab.get_by_label("hold heading", exact=True).check()
    turn.wait_for(state="attached")
    tab.get_by_label("hold heading", exact=True).uncheck()
    turn.wait_for(state="detached")
    enter("forward, m/s", "0.6")


def test_a_recording_is_saved_and_sent(served: Served, tab: Any) -> None:
    press(tab, "Record")
    press(tab, "Stop and save")
    told = tab.get_by_text("No video").or_(tab.get_by_text("The video is there")).first
    told.wait_for()
    if tab.get_by_text("No video").count():
        pytest.skip(tab.get_by_text("No video").locator("xpath=..").inner_text())
    (path,) = served.folder.glob("*.mp4")
    assert path.read_bytes()[4:8] == b"ftyp"
    tab.get_by_text(path.name).first.wait_for()
    first, second = served.page._free_path(), served.page._free_path()
    assert first != second and {first, second}.isdisjoint({path})


def test_one_that_leaves_takes_nothing_along(served: Served, tab: Any) -> None:
    """The last that sees `tab`, for it leaves."""
    choose_joint(tab, "left_knee")
    press(tab, "break")
    actor(tab, "any specialist")
    press(tab, "Pause")  # so that the robot does not fall, and heal, while a slow machine opens the other page
    other = served.open()
    actor(other, "any specialist")
    assert other.get_by_label("joint", exact=True).input_value() == "left_knee"
    other.get_by_text("2 viewers").first.wait_for()
    press(other, "Go on")
    tab.close()
    other.get_by_text("1 viewer", exact=False).first.wait_for()
    wait_for(lambda: len(served.page._server.get_clients()) == 1)
    then = served.page.loop._session.time
    wait_for(lambda: served.page.loop._session.time > then + 0.5)
    press(other, "heal")
    other.get_by_text("all joints well").wait_for()
    actor(other, "healthy policy")
    other.close()
    wait_for(lambda: not served.page._server.get_clients())
    then = served.page.loop._session.time
    wait_for(lambda: served.page.loop._session.time > then + 0.2)


def test_the_verb_prints_its_address_serves_only_here_and_ends_with_ctrl_c(h1_file: Path, tmp_path: Path) -> None:
    source = Path(koboshi.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "koboshi", "view", str(h1_file), "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(source)}, cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:") and line.endswith("(Ctrl-C ends it)\n"), line
        address = line.split()[0]
        with urllib.request.urlopen(address, timeout=5) as answer:
            assert b"<html" in answer.read()
        port = int(address.rsplit(":", 1)[1])
        with pytest.raises(OSError), socket.create_connection((_other_address(), port), timeout=5):
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()


def _other_address() -> str:
    """An address of this machine that is not 127.0.0.1."""
    return "127.0.0.2" if sys.platform == "linux" else socket.gethostbyname(socket.gethostname())


def test_what_cannot_be_served_is_one_line(
    h1_file: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot serve at 127.0.0.1:{port}" in fails("view", h1_file, "--port", port)
    assert "cannot serve at 192.0.2.1:8080" in fails("view", h1_file, "--host", "192.0.2.1")
    assert "--host is empty; 127.0.0.1 is this machine alone" in fails("view", h1_file, "--host", "")
    assert "--port is from 0 (any free one) to 65535, not 70000" in fails("view", h1_file, "--port", 70000)
    assert "no run 'nothing'" in fails("view", h1_file, "--against", "nothing")
    monkeypatch.setitem(sys.modules, "viser", None)
    assert "pip install 'koboshi[view]'" in fails("view", h1_file)
