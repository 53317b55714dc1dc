"""The page: a viser server that draws a session's moments and forwards what its viewers do."""

from __future__ import annotations

import contextlib
import io
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from koboshi import robots
from koboshi.envs.scene import visual_scene
from koboshi.errors import KoboshiError
from koboshi.live import charts
from koboshi.live.controls import Controls
from koboshi.live.loop import Loop
from koboshi.live.moment import Moment
from koboshi.live.puppet import Puppet
from koboshi.live.session import AXES, KEPT_S, Session
from koboshi.live.tape import Tape
from koboshi.robots import JointMap
from koboshi.view.scene import scene

if TYPE_CHECKING:
    import viser

PICTURES_A_S = 30.0
CHARTS_A_S = 5.0
CELL = 0.005
"""m; finer than in videos, for a viewer may go close."""
LOCAL = "127.0.0.1"
_UNITS = dict(zip(AXES, ("forward, m/s", "to the left, m/s", "turn, rad/s"), strict=True))

Film = Callable[[Tape, Path], Path]
"""Makes a video of a tape."""


def serve(session: Session, film: Film, folder: Path, host: str = LOCAL, port: int = 8080) -> Page:
    """A page that runs until it is closed. `folder`: of the videos that viewers record.

    port 0: any free one. KoboshiError where viser is not installed or the address cannot be had.
    """
    viser = _viser()
    _check_address(host, port)
    with _quiet():
        server = viser.ViserServer(host=host, port=port, verbose=False, label=f"koboshi · {session.robot.name}")
    try:
        return Page(server, session, film, folder)
    except BaseException:
        server.stop()
        raise


def _viser() -> Any:
    try:
        import viser
    except ImportError as error:
        raise KoboshiError("koboshi view needs viser, which is not installed: pip install 'koboshi[view]'") from error
    return viser


def _check_address(host: str, port: int) -> None:
    """viser would try one port after another for ever where the host is not this machine's."""
    if not 0 <= port <= 65535:
        raise KoboshiError(f"--port is from 0 (any free one) to 65535, not {port}")
    if not host:  # sockets take it for every network
        raise KoboshiError(f"--host is empty; {LOCAL} is this machine alone, 0.0.0.0 all of its networks")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise KoboshiError(
            f"cannot serve at {host}:{port}: {error.strerror or error}; --port 0 takes any free port, "
            f"--host is an IPv4 address of this machine ({LOCAL}, or 0.0.0.0 for all of its networks)"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """viser prints a box of its own, whatever it is told."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class Page:
    """One session, its loop, and all who look at it."""

    def __init__(self, server: viser.ViserServer, session: Session, film: Film, folder: Path) -> None:
        self._server, self._session, self._film, self._folder = server, session, film, folder
        self.names = session.robot.joint_names
        self.loop = Loop(session, self._watch)
        self._tape: Tape | None = None
        self._taper: Any = None
        self._filming = threading.Lock()
        self._films: list[threading.Thread] = []
        self._given: set[Path] = set()
        self._drawn = self._charted = -1.0
        self._dress()
        self._charts(session)
        self.controls = Controls(server, session, self.loop, self._record)
        model = scene(visual_scene(session.cfg.scene, robots.find(session.cfg.robot)), CELL)
        joints = JointMap(model, session.robot).joint
        ids = np.arange(model.njnt)[joints if isinstance(joints, slice) else joints.numpy()]
        self._puppet = Puppet(server, model, ids.tolist(), self.controls.choose_joint)
        self._draw(session.now)
        self._puppet.look_from()
        # Whoever comes sees the present, and how many look on is counted, even where the clock stands still.
        for comes_or_goes in (server.on_client_connect, server.on_client_disconnect):
            comes_or_goes(lambda client: self.loop.ask(lambda session: None))
        self.loop.start()

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        host = self._server.get_host()
        return f"http://{'localhost' if host == '0.0.0.0' else host}:{self._server.get_port()}"

    def wait(self) -> None:
        """Returns when the loop ends; what ended it is raised."""
        while self.loop.alive:
            time.sleep(0.2)
        if self.loop.error is not None:
            raise self.loop.error

    @property
    def recording(self) -> bool:
        """Whether a recording has begun that nobody has ended."""
        return self._tape is not None

    @property
    def filming(self) -> bool:
        """Whether a video is being made."""
        return any(thread.is_alive() for thread in self._films)

    def close(self) -> None:
        """Ends the loop, waits for videos that are being made, and ends the server; viewers are told."""
        self.loop.stop()
        for thread in self._films:
            thread.join()
        with _quiet():
            self._server.stop()

    def _dress(self) -> None:
        server = self._server
        # Whoever is on the page could otherwise open it to the world through viser's tunnel.
        server.request_share_url = lambda verbose=True: None  # type: ignore[method-assign]
        server.gui.configure_theme(
            control_width="medium", dark_mode=False, show_logo=False, show_share_button=False, brand_color=(0, 101, 164)
        )
        server.scene.set_up_direction("+z")
        server.scene.world_axes.visible = False
        server.scene.set_background_image(np.full((1, 1, 3), (228, 234, 241), np.uint8))
        server.gui.main_panel.dock_right()

    def _charts(self, session: Session) -> None:
        gui = self._server.gui
        panel = gui.add_panel()
        panel.dock_left()
        panel.set_width(370)
        with panel.add_tab("Watch"):
            self._status = gui.add_html("")
            with gui.add_folder("Is the joint broken? (the detector's belief)"):
                self._beliefs = gui.add_html("")
            with gui.add_folder("What happened"):
                self._notes = gui.add_html("")
            with gui.add_folder("The last seconds"):
                self._strips = gui.add_html("")
                self._curves = {
                    i: self._curve(_UNITS[axis], session.command_ranges[i])
                    for i, axis in enumerate(AXES)
                    if session.command_ranges[i][0] < session.command_ranges[i][1]
                }

    def _curve(self, title: str, limits: tuple[float, float]) -> Any:
        from viser import uplot

        room = 0.25 * (limits[1] - limits[0])
        return self._server.gui.add_uplot(
            data=(np.array([-KEPT_S, 0.0]), np.zeros(2), np.zeros(2)),
            series=(
                uplot.Series(label="s"),
                uplot.Series(label=f"{title}: got", stroke=charts.BLUE, width=1.2),
                uplot.Series(label="asked", stroke=charts.RED, width=2),
            ),
            scales={
                "x": uplot.Scale(time=False, auto=False, range=(-KEPT_S, 0.0)),
                "y": uplot.Scale(auto=False, range=(limits[0] - room, limits[1] + room)),
            },
            axes=(uplot.Axis(show=False), uplot.Axis(size=38)),
            legend=uplot.Legend(live=False),
            height=100,
        )

    def _watch(self, moment: Moment) -> None:
        """A new moment, on the loop's thread."""
        tape = self._tape
        if tape is not None:
            tape.add(moment)
            if tape.full:
                self._end_tape()
        now = time.monotonic()
        if not self._server.get_clients():
            return
        if self.loop.paused or now - self._drawn >= 1 / PICTURES_A_S - 0.002:
            self._drawn = now
            self._draw(moment)
        if self.loop.paused or now - self._charted >= 1 / CHARTS_A_S:
            self._charted = now
            self._chart(moment)

    def _draw(self, moment: Moment) -> None:
        self._puppet.follows = self.controls.follow
        broken = [self.names.index(name) for name in moment.faults]
        self._puppet.pose(moment.qpos, broken, self.controls.chosen)

    def _chart(self, moment: Moment) -> None:
        history = list(self._session.history)
        loop = self.loop
        health = charts.Health(loop.pace, loop.speed, loop.paused, loop.too_slow, len(self._server.get_clients()))
        self._status.content = charts.status(moment, health)
        self._beliefs.content = charts.belief_bars(self.names, moment)
        self._strips.content = charts.timeline(self.names, history, KEPT_S)
        self._notes.content = charts.notes(list(self._session.notes))
        if not history:
            return
        times = np.array([each.time for each in history]) - history[-1].time
        for i, curve in self._curves.items():
            asked, got = (np.array([getattr(m, name)[i] for m in history], float) for name in ("command", "velocity"))
            curve.data = (times, got, asked)

    def _record(self, event: Any) -> None:
        """Begins a tape, or ends it and has it filmed."""
        client = event.client
        self.loop.ask(lambda session: self._end_tape(client) if self._tape else self._begin_tape(client))

    def _begin_tape(self, client: Any) -> None:
        self._tape, self._taper = Tape(self.names, self._session.env.step_dt), client
        self.controls.record.label = "Stop and save"

    def _end_tape(self, *clients: Any) -> None:
        """The video goes to who began the recording and to `clients`, who end it, or if they are gone to everybody."""
        tape, self._tape = self._tape, None
        self.controls.record.label = "Record"
        here = list(self._server.get_clients().values())
        audience = [each for each in here if each in (self._taper, *clients)] or here
        film = threading.Thread(target=self._save, args=(tape, self._free_path(), audience), daemon=True)
        self._films = [thread for thread in self._films if thread.is_alive()] + [film]
        film.start()

    def _free_path(self) -> Path:
        """A video's, that no other one has."""
        name = time.strftime("%Y-%m-%d_%H-%M-%S")
        numbered = (f"-{i}" if i > 1 else "" for i in itertools.count(1))
        paths = (self._folder / f"{name}{number}.mp4" for number in numbered)
        path = next(each for each in paths if each not in self._given and not each.exists())
        self._given.add(path)
        return path

    def _save(self, tape: Tape, path: Path, audience: Sequence[Any]) -> None:
        """Makes the video beside the running simulation; the audience is told and gets it."""
        words = f"{tape.seconds:.1f} s, to {path}"
        told = [c.add_notification("Making the video", words, loading=True, with_close_button=False) for c in audience]
        try:
            with self._filming:
                self._film(tape, path)
        except Exception as error:  # whatever it is, whoever waits is told
            _tell(told, "No video", str(error), "red")
            if not isinstance(error, KoboshiError | OSError):
                raise
        else:
            _tell(told, "The video is there", str(path), "green")
            for client in audience:
                client.send_file_download(path.name, path.read_bytes())


def _tell(notices: Sequence[Any], title: str, body: str, colour: str) -> None:
    """What became of it, in the notices that said that it was being made."""
    for notice in notices:
        notice.title, notice.body, notice.color = title, body, colour
        notice.loading, notice.with_close_button = False, True
