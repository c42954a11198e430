"""Pictures of a series of observations, drawn with Pillow.

`distribution` and `course` decide what is shown; `Chart` knows where on the picture a pair of values lies and
how lines, areas and words look. Lines and areas are drawn three times as large and then reduced, which
smooths them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from observations import Observation, Summary, summarise
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, SCALE = 1200, 750, 3
LEFT, TOP, RIGHT, BOTTOM = 96, 128, 40, 84

PAPER = (251, 250, 247)
INK = (38, 43, 51)
FAINT_INK = (110, 117, 128)
GRID = (226, 224, 217)
AXIS = (150, 152, 155)
BLUE = (91, 141, 184)
DEEP_BLUE = (32, 66, 102)
RED = (200, 82, 58)
BAND = (200, 82, 58, 30)
BAND_ON_PAPER = (245, 230, 225)

Colour = tuple[int, ...]
Point = tuple[float, float]


class Tick(NamedTuple):
    """A place on an axis and what is written there."""

    at: float
    label: str


class Chart:
    """A picture with two axes. Positions are in the axes' own units unless said otherwise."""

    def __init__(self, x_range: Point, y_range: Point) -> None:
        self._x_range, self._y_range = x_range, y_range
        self._large = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._large, "RGBA")
        self._words: list[Callable[[Image.Image], None]] = []

    def at(self, x: float, y: float) -> Point:
        """Where on the enlarged picture a pair of values lies."""
        (x_low, x_high), (y_low, y_high) = self._x_range, self._y_range
        right = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return right * SCALE, down * SCALE

    def axes(self, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], x_label: str, y_label: str) -> None:
        """Grid lines, figures, and what the axes mean."""
        (x_low, x_high), (y_low, _) = self._x_range, self._y_range
        for tick in y_ticks:
            self.line([(x_low, tick.at), (x_high, tick.at)], GRID, 1)
            _, down = self.at(x_low, tick.at)
            self._write(LEFT - 12, down / SCALE, tick.label, 17, FAINT_INK, "rm")
        for tick in x_ticks:
            right, down = self.at(tick.at, y_low)
            self._draw.line([(right, down), (right, down + 6 * SCALE)], AXIS, SCALE)
            self._write(right / SCALE, down / SCALE + 12, tick.label, 17, FAINT_INK, "mt")
        self._write(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 22, x_label, 18, INK, "mm")
        self._write_upwards(28, TOP + (HEIGHT - TOP - BOTTOM) / 2, y_label, 18, INK)

    def base_line(self) -> None:
        """The horizontal axis, drawn over what stands on it."""
        (x_low, x_high), (y_low, _) = self._x_range, self._y_range
        self.line([(x_low, y_low), (x_high, y_low)], AXIS, 1.5)

    def title(self, title: str, subtitle: str) -> None:
        """What the picture shows, and its figures."""
        self._write(LEFT, 42, title, 32, INK, "lm")
        self._write(LEFT, 82, subtitle, 20, FAINT_INK, "lm")

    def legend(self, entries: Sequence[tuple[str, Colour, str]]) -> None:
        """From the right: (kind, colour, text), the kind being ``line``, ``dashes``, ``area`` or ``dot``."""
        right = float(WIDTH - RIGHT)
        font = _font(17)
        for kind, colour, text in reversed(entries):
            self._write(right, 42, text, 17, INK, "rm")
            right -= font.getlength(text) + 44
            box = [right * SCALE, 42 * SCALE, (right + 34) * SCALE, 42 * SCALE]
            if kind == "line":
                self._draw.line(box, colour, 3 * SCALE)
            elif kind == "dashes":
                for start in (0, 13, 26):
                    left = box[0] + start * SCALE
                    self._draw.line([left, box[1], left + 8 * SCALE, box[1]], colour, 2 * SCALE)
            elif kind == "dot":
                self._disc((box[0] + box[2]) / 2, box[1], 5, colour)
            else:
                self._draw.rounded_rectangle(
                    [box[0] + 8 * SCALE, box[1] - 8 * SCALE, box[2] - 2 * SCALE, box[1] + 8 * SCALE],
                    3 * SCALE,
                    fill=colour,
                )
            right -= 26

    def area(self, corner: Point, opposite: Point, colour: Colour) -> None:
        """A rectangle without a border."""
        (x1, y1), (x2, y2) = self.at(*corner), self.at(*opposite)
        self._draw.rectangle([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], fill=colour)

    def bar(self, left: float, right: float, height: float) -> None:
        """A column on the axis, with a little space to its neighbours."""
        (x1, y1), (x2, y2) = self.at(left, height), self.at(right, 0)
        gap = min(1.5 * SCALE, (x2 - x1) / 6)
        box = [x1 + gap, y1, x2 - gap, y2]
        radius = min(5 * SCALE, (box[2] - box[0]) / 3, y2 - y1)
        self._draw.rounded_rectangle(box, radius, fill=BLUE, corners=(True, True, False, False))

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Through all points; `width` in pixels of the finished picture."""
        self._draw.line([self.at(*point) for point in points], colour, round(width * SCALE), joint="curve")

    def curve(self, points: Sequence[Point]) -> None:
        """The line that the picture is about, set off from what lies below it."""
        self.line(points, (*PAPER, 150), 6.5)
        self.line(points, RED, 3)

    def dashes(self, start: Point, end: Point, colour: Colour) -> None:
        """A dashed straight line."""
        (x1, y1), (x2, y2) = self.at(*start), self.at(*end)
        length, dash, step = math.hypot(x2 - x1, y2 - y1), 8 * SCALE, 13 * SCALE
        for begin in range(0, int(length), step):
            share, until = begin / length, min(begin + dash, length) / length
            self._draw.line(
                [
                    (x1 + (x2 - x1) * share, y1 + (y2 - y1) * share),
                    (x1 + (x2 - x1) * until, y1 + (y2 - y1) * until),
                ],
                colour,
                2 * SCALE,
            )

    def dot(self, point: Point, radius: float, colour: Colour) -> None:
        """A disc; `radius` in pixels of the finished picture."""
        self._disc(*self.at(*point), radius, colour)

    def finished(self) -> Image.Image:
        """The picture in its final size."""
        image = self._large.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        for word in self._words:
            word(image)
        return image

    def _disc(self, right: float, down: float, radius: float, colour: Colour) -> None:
        size = radius * SCALE
        self._draw.ellipse([right - size, down - size, right + size, down + size], fill=colour)

    def _write(self, right: float, down: float, text: str, size: int, colour: Colour, anchor: str) -> None:
        def word(image: Image.Image) -> None:
            ImageDraw.Draw(image).text((right, down), text, colour, _font(size), anchor)

        self._words.append(word)

    def _write_upwards(self, right: float, down: float, text: str, size: int, colour: Colour) -> None:
        def word(image: Image.Image) -> None:
            font = _font(size)
            box = (math.ceil(font.getlength(text)) + 4, size * 2)
            mask = Image.new("L", box, 0)
            ImageDraw.Draw(mask).text((box[0] / 2, box[1] / 2), text, 255, font, "mm")
            turned = mask.rotate(90, expand=True)
            image.paste(colour, (round(right - turned.width / 2), round(down - turned.height / 2)), turned)

        self._words.append(word)


def distribution(series: Sequence[Observation]) -> Image.Image:
    """A histogram with the normal curve of the same mean and spread. `series` must not be empty."""
    summary = summarise(list(series))
    mean, deviation, spread = summary.mean, summary.stddev, _is_spread(summary)
    values = [one.value for one in series]
    width = _bin_width(values, spread)
    first = math.floor(min(values) / width)
    counts = [0] * (math.floor(max(values) / width) - first + 1)
    for value in values:
        counts[math.floor(value / width) - first] += 1

    low, high = first * width, (first + len(counts)) * width
    if spread:
        low, high = min(low, mean - 3.2 * deviation), max(high, mean + 3.2 * deviation)
        low, high = low - 0.02 * (high - low), high + 0.02 * (high - low)
    else:
        low, high = low - 4 * width, high + 4 * width
    peak = len(values) * width / (deviation * math.sqrt(2 * math.pi)) if spread else 0.0
    top = max(*counts, peak, 1) * 1.12

    chart = Chart((low, high), (0, top))
    if spread:
        chart.area((mean - deviation, 0), (mean + deviation, top), BAND)
    chart.axes(
        _ticks(low, high, 12),
        _ticks(0, top, 6, least=1),
        "observed value",
        f"observations per bin of {_figure(width)}",
    )
    for place, count in enumerate(counts, first):
        if count:
            chart.bar(place * width, (place + 1) * width, count)
    chart.dashes((mean, 0), (mean, top), DEEP_BLUE)
    if spread:
        steps = [low + (high - low) * step / 400 for step in range(401)]
        chart.curve([(x, peak * math.exp(-(((x - mean) / deviation) ** 2) / 2)) for x in steps])
    chart.base_line()
    chart.title("Distribution of the observations", _figures(summary))
    chart.legend(
        [
            ("area", BLUE, "observed"),
            *([("line", RED, "normal curve")] if spread else []),
            ("dashes", DEEP_BLUE, "mean"),
            *([("area", BAND_ON_PAPER, "mean ± sd")] if spread else []),
        ]
    )
    return chart.finished()


def course(series: Sequence[Observation]) -> Image.Image:
    """The values over time with their moving average. `series` must not be empty."""
    summary = summarise(list(series))
    points = sorted((one.at.timestamp(), one.value) for one in series)
    start, end = points[0][0], points[-1][0]
    if end - start < 1:
        start, end = start - 0.5, end + 0.5
    room = (end - start) * 0.015
    spread = max(summary.stddev, abs(summary.mean) * 0.01, 1e-9)
    low = min(min(value for _, value in points), summary.mean - 2 * spread)
    high = max(max(value for _, value in points), summary.mean + 2 * spread)
    low, high = low - (high - low) * 0.06, high + (high - low) * 0.06

    chart = Chart((start - room, end + room), (low, high))
    chart.area(
        (start - room, summary.mean - summary.stddev), (end + room, summary.mean + summary.stddev), BAND
    )
    chart.axes(_time_ticks(start, end), _ticks(low, high, 7), "time (UTC)", "observed value")
    chart.dashes((start - room, summary.mean), (end + room, summary.mean), DEEP_BLUE)
    crowded = len(points) > 600
    radius = 2.2 if crowded else 3.6 if len(points) > 60 else 5
    if not crowded:
        chart.line(points, (*BLUE, 90), 1.2)
    for point in points:
        chart.dot(point, radius, (*BLUE, 130) if crowded else BLUE)
    average = _moving_average(points)
    if len(average) > 1:
        chart.curve(average)
    chart.base_line()
    chart.title("Observations over time", _figures(summary))
    chart.legend(
        [
            ("dot", BLUE, "observed"),
            *([("line", RED, "moving average")] if len(average) > 1 else []),
            ("dashes", DEEP_BLUE, "mean"),
            *([("area", BAND_ON_PAPER, "mean ± sd")] if _is_spread(summary) else []),
        ]
    )
    return chart.finished()


def _figures(summary: Summary) -> str:
    """The summary in one line, such as ``n = 37   ·   mean 14.02   ·   sd 2.91``."""
    return f"n = {summary.count}   ·   mean {summary.mean:.2f}   ·   sd {summary.stddev:.2f}"


def _is_spread(summary: Summary) -> bool:
    """Whether the values differ by more than the error of floating-point sums."""
    return summary.stddev > abs(summary.mean) * 1e-9


def _bin_width(values: Sequence[float], spread: bool) -> float:
    """The rule of Freedman and Diaconis as a round number, kept to between about 5 and 40 columns."""
    if not spread:
        return _round_step(max(abs(values[0]) / 20, 1e-6))
    span = max(values) - min(values)
    quartiles = statistics.quantiles(values, n=4)
    rule = 2 * (quartiles[2] - quartiles[0]) / len(values) ** (1 / 3)
    # Somewhat less than the rule says, because the rounding goes up, by 2.5 at most.
    return _round_step(min(max(0.6 * rule, span / 40), span / 8))


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, times a power of ten, that is not less than `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _ticks(low: float, high: float, about: int, *, least: float = 0.0) -> list[Tick]:
    """Round numbers between `low` and `high`, at most about so many, at least `least` apart."""
    step = max(_round_step((high - low) / about), least)
    places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [Tick(place * step, _figure(place * step)) for place in places]


def _figure(value: float) -> str:
    return f"{value:.10g}"


def _time_ticks(start: float, end: float) -> list[Tick]:
    """Round times of day, at most nine."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
    step = next((step for step in steps if (end - start) / step <= 8), steps[-1])
    while (end - start) / step > 8:
        step *= 2
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%d %b"
    places = range(math.ceil(start / step), math.floor(end / step) + 1)
    return [Tick(p * step, datetime.fromtimestamp(p * step, UTC).strftime(form)) for p in places]


def _moving_average(points: Sequence[Point]) -> list[Point]:
    """Means over a twentieth of the points, at least five, each at the middle of its window."""
    size = max(5, len(points) // 20)
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    middles = (points[place + size // 2][0] for place in range(len(points) - size + 1))
    return [(at, (sums[p + size] - sums[p]) / size) for p, at in enumerate(middles)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface: the image has no others."""
    return ImageFont.load_default(size)
