"""The words, chips and strip plots around a rendered scene, drawn with Pillow."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koboshi.view.trajectory import Trajectory

HEADER = 62
"""Pixels above the scene."""
STRIP = 134
"""Pixels below the scene."""
INK, MUTED, GRID, PAPER = (26, 34, 46), (104, 114, 128), (222, 227, 233), (255, 255, 255)
RED, BLUE, GREEN = (213, 74, 8), (0, 101, 164), (0, 138, 100)
# Okabe and Ito's colours without those that already mean something.
_OTHERS = ((0, 114, 178), (230, 159, 0), (204, 121, 167), (86, 180, 233))
_MARGIN = 14
_LEGEND = 128

Colour = tuple[int, int, int]


@functools.cache
def _font(size: int, bold: bool) -> Any:
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"  # matplotlib brings them along
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Pixels that `text` takes in one line."""
    return int(np.ceil(_font(size, bold).getlength(text)))


def _fitted(text: str, size: int, bold: bool, width: int) -> str:
    """`text`, cut with an ellipsis where it would be wider than `width` pixels."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text + "…"


@functools.lru_cache(maxsize=256)
def _chip(text: str, colour: Colour, size: int, filled: bool) -> Any:
    """A rounded label as an RGBA image; drawn at three times its size for smooth corners."""
    from PIL import Image, ImageDraw

    pad, height = size * 3 // 4, size * 2
    dot = 0 if filled else size
    width = text_width(text, size, True) + 2 * pad + dot
    big = Image.new("RGBA", (3 * width, 3 * height))
    draw = ImageDraw.Draw(big)
    back = (*colour, 235) if filled else (255, 255, 255, 225)
    draw.rounded_rectangle((0, 0, 3 * width - 1, 3 * height - 1), radius=1.5 * height, fill=back)
    if dot:
        r, x, y = 1.1 * size, 3 * pad + size, 1.5 * height
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*colour, 255))
    chip = big.resize((width, height), Image.Resampling.LANCZOS)
    ink = (255, 255, 255, 255) if filled else (*INK, 255)
    ImageDraw.Draw(chip).text((pad + dot, height / 2), text, font=_font(size, True), fill=ink, anchor="lm")
    return chip


def _put(image: Any, chip: Any, x: float, y: float) -> None:
    image.paste(chip, (round(x), round(y)), chip)


def actor_colour(actor: str, actors: Sequence[str]) -> Colour:
    """Blue for the healthy policy, green for the first specialist that acts, others in order."""
    others = [name for name in dict.fromkeys(actors) if name != "healthy"]
    if actor not in others:
        return BLUE
    return (GREEN, *_OTHERS[1:])[others.index(actor) % 4]


class PanelOverlay:
    """Everything around one trajectory's scene of `width` × `height`; `duration` s is the time axis."""

    def __init__(self, trajectory: Trajectory, width: int, height: int, duration: float) -> None:
        self.trajectory, self.width, self.height = trajectory, width, height
        self.strip = StripPlot(trajectory, width, STRIP, max(duration, trajectory.control_dt))

    def draw(self, scene: NDArray[np.uint8], time: float) -> Any:
        """The whole panel (HEADER + height + STRIP high) at `time` s as a Pillow image."""
        from PIL import Image

        t = self.trajectory
        picture = Image.fromarray(scene)
        fell = t.fell_at is not None and time >= t.fell_at
        if fell:
            picture = Image.blend(picture, Image.new("RGB", picture.size, (70, 76, 86)), 0.45)
        self._chips(picture, time, fell)
        panel = Image.new("RGB", (self.width, HEADER + self.height + STRIP), PAPER)
        panel.paste(picture, (0, HEADER))
        panel.paste(self.strip.at(time), (0, HEADER + self.height))
        self._header(panel, time)
        return panel

    def _header(self, panel: Any, time: float) -> None:
        from PIL import ImageDraw

        t, draw = self.trajectory, ImageDraw.Draw(panel)
        row = t.index(time)
        clock = f"{time:5.2f} s"
        room = self.width - 3 * _MARGIN - text_width(clock, 16)
        draw.text((_MARGIN, 8), _fitted(t.title, 19, True, room), font=_font(19, True), fill=INK)
        draw.text((self.width - _MARGIN, 10), clock, font=_font(16, False), fill=MUTED, anchor="ra")
        command, velocity = t.command[row], t.velocity[row]
        words = f"command {command[0]:.2f} m/s, {command[2]:+.2f} rad/s"
        if abs(command[1]) >= 0.005:
            words = f"command {command[0]:.2f}, {command[1]:+.2f} m/s, {command[2]:+.2f} rad/s"
        draw.text((_MARGIN, 36), words, font=_font(14, False), fill=MUTED)
        speed = f"speed {velocity[0]:.2f} m/s"
        draw.text((self.width - _MARGIN, 36), speed, font=_font(14, False), fill=INK, anchor="ra")

    def _chips(self, picture: Any, time: float, fell: bool) -> None:
        t = self.trajectory
        y = 10.0
        for mark in t.fault:
            if mark.acts(time):
                _put(picture, _chip(mark.text, RED, 14, True), _MARGIN, y)
                y += 34
        for alarm in t.alarms:
            if time >= alarm.time:
                _put(picture, _chip(t.alarm_text(alarm), GREEN, 14, True), _MARGIN, y)
                y += 34
        if t.actor and not fell:
            actor = t.actor[t.index(time)]
            name = "healthy policy" if actor == "healthy" else actor
            chip = _chip(f"acting: {name}", actor_colour(actor, t.actor), 14, False)
            _put(picture, chip, _MARGIN, self.height - chip.height - 10)
        if fell:
            chip = _chip(f"fell at {t.fell_at:.2f} s", INK, 22, True)
            _put(picture, chip, (self.width - chip.width) / 2, (self.height - chip.height) * 0.4)


class StripPlot:
    """Probabilities of the likeliest joints over time, or the forward speed where there is no detector.

    Drawn once; each frame uncovers it up to its time.
    """

    def __init__(self, trajectory: Trajectory, width: int, height: int, duration: float) -> None:
        self.trajectory, self.duration = trajectory, duration
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = 44, width - _LEGEND, 28, height - 24
        self._empty = self._frame()
        self._full = self._curves(self._empty)

    def at(self, time: float) -> Any:
        """The plot as it stands at `time` s."""
        from PIL import ImageDraw

        x = round(self._x(time))
        image = self._empty.copy()
        image.paste(self._full.crop((0, 0, x + 1, self.height)), (0, 0))
        ImageDraw.Draw(image).line((x, self.top - 2, x, self.bottom + 2), fill=MUTED, width=1)
        return image

    def _x(self, time: float | NDArray[np.floating]) -> Any:
        return self.left + (self.right - self.left) * np.clip(np.asarray(time) / self.duration, 0, 1)

    def _y(self, value: NDArray[np.floating], low: float, high: float) -> Any:
        return self.bottom - (self.bottom - self.top) * np.clip((value - low) / (high - low), 0, 1)

    def _lines(self) -> tuple[str, tuple[float, float], list[tuple[str, Colour, NDArray[np.floating]]]]:
        t = self.trajectory
        if t.probability is not None:
            broken = {mark.joint for mark in t.fault}
            others = iter(_OTHERS * 2)
            chosen = [(t.joint_names[j], j) for j in t.top_joints(4)]
            lines = [(n, RED if n in broken else next(others), t.probability[:, j]) for n, j in chosen]
            return "which joint is broken? (probability)", (0, 1), lines
        speed, command = t.velocity[:, 0], t.command[:, 0]
        low, high = min(0.0, float(command.min())), max(0.5, 1.5 * float(command.max()))
        return "forward speed, m/s", (low, high), [("command", MUTED, command), ("speed", _OTHERS[0], speed)]

    def _frame(self) -> Any:
        from PIL import Image, ImageDraw

        title, (low, high), lines = self._lines()
        image = Image.new("RGB", (self.width, self.height), PAPER)
        draw = ImageDraw.Draw(image)
        draw.text((self.left, 6), title, font=_font(12, True), fill=INK)
        for value in (low, (low + high) / 2, high):
            y = float(self._y(np.asarray(value), low, high))
            draw.line((self.left, y, self.right, y), fill=GRID)
            draw.text((self.left - 6, y), f"{value:.1f}", font=_font(11, False), fill=MUTED, anchor="rm")
        for second in range(0, int(self.duration) + 1, max(1, round(self.duration / 6))):
            x = float(self._x(second))
            draw.text((x, self.bottom + 5), f"{second} s", font=_font(11, False), fill=MUTED, anchor="ma")
        for i, (name, colour, _) in enumerate(lines):
            y = self.top + 6 + 19 * i
            draw.rectangle((self.right + 10, y - 2, self.right + 24, y + 1), fill=colour)
            label = _fitted(name, 11, False, _LEGEND - 34)
            draw.text((self.right + 29, y), label, font=_font(11, False), fill=INK, anchor="lm")
        return image

    def _curves(self, empty: Any) -> Any:
        """The finished plot: the curves are drawn at twice the size and scaled down to be smooth."""
        from PIL import Image, ImageDraw

        t = self.trajectory
        _, (low, high), lines = self._lines()
        big = empty.resize((2 * self.width, 2 * self.height), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(big)
        for time, colour in [(mark.time, RED) for mark in t.fault] + [(alarm.time, GREEN) for alarm in t.alarms]:
            x = 2 * float(self._x(time))
            draw.line((x, 2 * self.top, x, 2 * self.bottom), fill=colour, width=2)
        x = 2 * self._x(np.arange(len(t.qpos)) * t.control_dt)
        for _, colour, values in reversed(lines):  # the broken joint last, on top
            y = 2 * self._y(np.nan_to_num(np.asarray(values, float)), low, high)
            width = 5 if colour == RED else 3
            draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=width, joint="curve")
        small = big.resize((self.width, self.height), Image.Resampling.BOX)
        full = empty.copy()
        inside = (self.left - 1, self.top - 3, self.right + 2, self.bottom + 3)
        full.paste(small.crop(inside), inside[:2])
        return full
