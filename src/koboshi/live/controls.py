"""The page's controls: each only asks the session's loop for a change, so that viewers cannot race."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, can_have
from koboshi.live.loop import FASTEST, SLOWEST, Change, Loop
from koboshi.live.session import AXES, SHOVE, Session

if TYPE_CHECKING:
    import viser

_YAW = list(AXES).index("yaw rate")
_WORDS = {"v_x": "forward, m/s", "v_y": "left, m/s", "yaw rate": "turn left, rad/s"}
ACTIONS = {"break": ("torque_loss", 1.0), "weaken": ("torque_loss", None), "lock": ("locked", 1.0),
           "blind": ("encoder_freeze", 1.0), "heal": None}  # fmt: skip
"""Button -> the fault's kind and severity (None: the slider's); `heal` takes the fault away."""
_DIRECTIONS = {"ahead": (1, 0), "back": (-1, 0), "left": (0, 1), "right": (0, -1)}


class Controls:
    """Everything that can be set; shared by all viewers, so that each sees what another has set.

    chosen: index of the joint that buttons act on.
    """

    def __init__(self, server: viser.ViserServer, session: Session, loop: Loop, record: Callable[[Any], None]) -> None:
        """`record(event)`: the record button was pressed."""
        self._server, self._loop = server, loop
        self.names, self._robot = session.robot.joint_names, session.robot
        self.chosen = self.names.index(session.robot.fault_candidates[0])
        self.follow = True
        self._clock(session, record)
        self._joint()
        self._command(session)
        self._shove()
        if session.levels > 1 or len(session.kinds) > 1:
            self._ground(session)
        self._world(session)

    def _ask(self, event: Any, change: Change) -> None:
        def refused(error: KoboshiError) -> None:
            if event.client is not None:
                event.client.add_notification("That cannot be", str(error), color="red", auto_close_seconds=8.0)

        self._loop.ask(change, refused)

    def _asks(self, change: Change) -> Callable[[Any], None]:
        """What a button does."""
        return lambda event: self._ask(event, change)

    def _sets(self, change: Callable[[Session, Any], None]) -> Callable[[Any], None]:
        """What an input does with its value, which is read when the change is made: the last of several counts."""
        return lambda event: self._ask(event, lambda session: change(session, _within(event.target)))

    def _clock(self, session: Session, record: Callable[[Any], None]) -> None:
        gui, loop = self._server.gui, self._loop
        self.pause = gui.add_button("Pause", color="blue")
        reset = gui.add_button("Reset", hint="A whole robot in the same world")
        self.record = gui.add_button("Record", hint="Record until it is pressed again, then save an mp4")
        speed = gui.add_slider("speed", SLOWEST, FASTEST, 0.05, loop.speed, hint="1 is real time, less is slow motion")
        controller = gui.add_dropdown("controller", tuple(session.drivers), initial_value=session.controller)
        follow = gui.add_checkbox("follow the robot", True)
        self.pause.on_click(self._toggle_pause)
        reset.on_click(self._asks(Session.reset))
        self.record.on_click(record)
        controller.on_update(self._sets(Session.choose))

        speed.on_update(self._sets(lambda session, value: setattr(loop, "speed", value)))

        follow.on_update(self._sets(lambda session, value: setattr(self, "follow", value)))

    def _toggle_pause(self, event: Any) -> None:
        def toggle(session: Session) -> None:
            self._loop.paused = not self._loop.paused
            self.pause.label = "Go on" if self._loop.paused else "Pause"

        self._ask(event, toggle)

    def _joint(self) -> None:
        gui = self._server.gui
        with gui.add_folder("Joint (or click on the robot)"):
            self._joint_choice: Any = gui.add_dropdown("joint", self.names, initial_value=self.names[self.chosen])
            action = gui.add_button_group("do", tuple(ACTIONS))
            severity = gui.add_slider("severity", 0.05, 1.0, 0.05, 0.7, hint="Of weaken, and of the kinds below")
            kind = gui.add_dropdown("kind", self._kinds())
            apply = gui.add_button("Give it this kind of fault")
            heal = gui.add_button("Heal all joints")

        def choose(session: Session, name: str) -> None:
            self.chosen = self.names.index(name)
            kind.options = self._kinds()

        self._joint_choice.on_update(self._sets(choose))

        @action.on_click
        def _(event: Any) -> None:
            fault = ACTIONS[event.target.value]

            # Whose joint, and how grave, is what the loop has come to by then: a choice may still be on its way to it.
            def change(session: Session) -> None:
                joint = self.names[self.chosen]
                if fault is None:
                    session.heal(joint)
                else:
                    session.break_joint(joint, fault[0], _within(severity) if fault[1] is None else fault[1])

            self._ask(event, change)

        def give(session: Session) -> None:
            session.break_joint(self.names[self.chosen], kind.value, _within(severity))

        apply.on_click(self._asks(give))
        heal.on_click(self._asks(Session.heal))

    def _kinds(self) -> tuple[str, ...]:
        """Those that can happen to the chosen joint."""
        return tuple(kind for kind in KINDS if can_have(self._robot, self.names[self.chosen], kind))

    def choose_joint(self, joint: int) -> None:
        """As if the joint had been chosen from the list."""
        self._joint_choice.value = self.names[joint]

    def _command(self, session: Session) -> None:
        gui = self._server.gui
        sliders: dict[int, Any] = {}
        with gui.add_folder("Command"):
            rows = zip(AXES, session.command_ranges, session.command, strict=True)
            for i, (axis, (low, high), value) in enumerate(rows):
                if low < high:
                    sliders[i] = gui.add_slider(_WORDS[axis], low, high, 0.05, value)
            hold = gui.add_checkbox("hold heading", False, hint="It turns back to where it looks now")
            stand = gui.add_button("Stand still")
        fixed = list(session.command)

        def ask(session: Session, _: Any) -> None:
            session.set_command(*(_within(sliders[i]) if i in sliders else fixed[i] for i in range(3)))

        def hold_heading(session: Session, value: bool) -> None:
            session.hold_heading(value)
            if _YAW in sliders:
                sliders[_YAW].disabled = value  # the rate follows from the heading then

        for slider in sliders.values():
            slider.on_update(self._sets(ask))
        hold.on_update(self._sets(hold_heading))

        @stand.on_click
        def _(event: Any) -> None:
            for slider in sliders.values():
                slider.value = min(max(0.0, slider.min), slider.max)

    def _shove(self) -> None:
        gui = self._server.gui
        with gui.add_folder("Shove"):
            strength = gui.add_slider("strength, m/s", 0.1, SHOVE, 0.1, 0.6)
            direction = gui.add_button_group("towards", tuple(_DIRECTIONS))

        @direction.on_click
        def _(event: Any) -> None:
            forward, left = (_within(strength) * part for part in _DIRECTIONS[event.target.value])
            self._ask(event, lambda session: session.shove(forward, left))

    def _ground(self, session: Session) -> None:
        gui = self._server.gui
        with gui.add_folder("Ground"):
            level, kind = session.cell
            kinds = gui.add_dropdown("type", session.kinds, initial_value=kind)
            levels = gui.add_slider("level", 0, max(session.levels - 1, 1), 1, level, hint="0 is the easiest")
            put = gui.add_button("Put it there")
            if session.trained:
                reached = (f"{name.replace('_', ' ')} {value:.1f}" for name, value in session.trained.items())
                gui.add_markdown(f"Training had come to levels: {', '.join(reached)}")

        put.on_click(self._asks(lambda session: session.place(int(_within(levels)), kinds.value)))

    def _world(self, session: Session) -> None:
        gui = self._server.gui
        sliders: dict[str, Any] = {}
        with gui.add_folder("World"):
            for name, quantity in session.quantities.items():
                label = f"{name}, {quantity.unit}" if quantity.unit else name
                step = 0.05 if quantity.high < 5 else 0.5
                sliders[name] = gui.add_slider(
                    label, quantity.low, quantity.high, step, quantity.nominal, hint=quantity.about
                )
            nominal = gui.add_button("As the model says")
        for name, slider in sliders.items():
            slider.on_update(self._sets(partial(_set_world, name)))

        @nominal.on_click
        def _(event: Any) -> None:
            for name, slider in sliders.items():
                slider.value = session.quantities[name].nominal


def _within(target: Any) -> Any:
    """An input's value; of a slider one in its range, for while a number is typed its first digits may lie outside."""
    value = target.value
    return min(max(value, target.min), target.max) if hasattr(target, "min") else value


def _set_world(name: str, session: Session, value: float) -> None:
    session.set_world(name, value)
