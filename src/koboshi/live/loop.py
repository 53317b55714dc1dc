"""A session's clock: a thread that steps it in real time and makes every change that somebody asks for."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from koboshi.errors import KoboshiError
from koboshi.live.moment import Moment
from koboshi.live.session import Session

SLOWEST, FASTEST = 0.05, 1.0
_DEBT_S = 0.1
"""A thread that is later than this gives the lost time up instead of racing after it."""
_WINDOW_S = 2.0
"""Over how long the pace is measured."""
_NAP_S = 0.05

Change = Callable[[Session], None]
Refused = Callable[[KoboshiError], None]


class Loop:
    """The only thread that touches its session once it has started.

    `ask` may be called from any thread: changes are made one after another between two control steps, in the order in
    which they were asked for. `watch` is called on the loop's thread with every new moment, and must be quick.
    """

    def __init__(self, session: Session, watch: Callable[[Moment], None]) -> None:
        self._session, self._watch = session, watch
        self._asked: queue.SimpleQueue[tuple[Change, Refused | None]] = queue.SimpleQueue()
        self._speed, self.paused = 1.0, False
        self._changed = False
        self._marks: deque[tuple[float, float]] = deque()
        self._stop, self._called = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="koboshi-view", daemon=True)
        self.error: BaseException | None = None
        """What ended the thread, where anything but `stop` did."""

    @property
    def speed(self) -> float:
        """Simulated seconds in a second that are asked for; below 1 is slow motion."""
        return self._speed

    @speed.setter
    def speed(self, value: float) -> None:
        if not SLOWEST <= value <= FASTEST:
            raise KoboshiError(f"speed is from {SLOWEST:g} to {FASTEST:g}, not {value:g}")
        self._speed = value
        self._marks.clear()

    @property
    def pace(self) -> float | None:
        """Simulated seconds in a second over the last two; None while there is too little to say."""
        marks = list(self._marks)
        if self.paused or len(marks) < 2 or marks[-1][0] - marks[0][0] < _WINDOW_S / 4:
            return None
        (first, begin), (last, end) = marks[0], marks[-1]
        return (end - begin) / (last - first)

    @property
    def too_slow(self) -> bool:
        """Whether this machine falls behind what is asked for by more than a tenth."""
        pace = self.pace
        return pace is not None and pace < 0.9 * self._speed

    def ask(self, change: Change, refused: Refused | None = None) -> None:
        """Has a change made before the next control step; `refused` hears why it cannot be."""
        self._asked.put((change, refused))
        self._called.set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self._stop.set()
        self._called.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._go_on()
        except BaseException as error:  # noqa: BLE001 (told to whoever waits for this thread)
            self.error = error

    def _go_on(self) -> None:
        due = time.monotonic()
        self._watch(self._session.now)
        while not self._stop.is_set():
            self._make_changes()
            if self.paused:
                if self._changed:
                    self._watch(self._session.refreshed())
                self._changed = False
                self._marks.clear()
                self._stop.wait(_NAP_S)
                due = time.monotonic()
                continue
            moment = self._session.step()
            self._watch(moment)
            self._changed = False
            due = self._wait(due + self._session.env.step_dt / self._speed)
            self._mark(moment.time)

    def _make_changes(self) -> None:
        while True:
            try:
                change, refused = self._asked.get_nowait()
            except queue.Empty:
                return
            self._changed = True
            try:
                change(self._session)
            except KoboshiError as error:
                if refused is not None:
                    refused(error)

    def _wait(self, due: float) -> float:
        """Sleeps until `due` (monotonic s), but makes changes at once, for in slow motion that is long; the moment that
        the next step counts from."""
        now = time.monotonic()
        if now - due > _DEBT_S:
            return now
        while due > now and not (self.paused or self._stop.is_set()):
            if self._called.wait(due - now):
                self._called.clear()
                self._make_changes()
            now = time.monotonic()
            due = min(due, now + self._session.env.step_dt / self._speed)  # it may go faster now
        return due

    def _mark(self, simulated: float) -> None:
        now = time.monotonic()
        self._marks.append((now, simulated))
        while now - self._marks[0][0] > _WINDOW_S:
            self._marks.popleft()
