"""Charts as inline SVG that stretches with the page while its text keeps its size.

Positions along x are percentages of the width, those along y pixels; shapes that SVG cannot place by percentages lie in a nested
coordinate system 1000 wide. Colours and fonts come from the style sheet, by class. All text is escaped by ElementTree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from bayesnn.notation import MINUS, interval, number
from diagnostics.estimates import Estimate

WIDTH = 1000  # of the nested coordinate system; a tenth of a pixel on any screen
PLAIN_STEPS = (1e-6, 1e6)  # between ticks; smaller and larger ones are written with exponents
CROWDED = 8  # times shorter must an axis become without a row for it to be off the scale: an eighth of it is hard to read
FEWEST_SHOWN = 2  # rows that make a scale
MAX_COLUMNS = 300  # of a line: more pieces than that cannot be told apart

LEFT, RIGHT = "\N{BLACK LEFT-POINTING SMALL TRIANGLE}", "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"

type Vector = Float[np.ndarray, " point"]


def identity(values: np.ndarray) -> np.ndarray:
    """Return the values: a linear axis."""
    return values


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Attributes:
        lower: Value at its start.
        upper: Value at its end.
        ticks: Values that are marked, with their labels.
        transform: Of values, before they are laid out evenly.
    """

    lower: float
    upper: float
    ticks: tuple[tuple[float, str], ...] = ()
    transform: Callable[[np.ndarray], np.ndarray] = identity

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        """Return the place of values on the axis: 0 at its start, 1 at its end, never beyond."""
        start, end, place = (self.transform(np.asarray(x, float)) for x in (self.lower, self.upper, values))
        return np.clip((place - start) / (end - start), 0, 1)


def linear_axis(values: Iterable[float], num_ticks: int = 5) -> Axis:
    """Return an axis that holds all finite values, with round numbers marked."""
    finite = np.asarray([value for value in values if math.isfinite(value)] or [0.0])
    lower, upper = float(finite.min()), float(finite.max())
    if upper - lower <= 1e-9 * max(abs(lower), abs(upper)):
        margin = 0.5 * abs(upper) or 0.5
        lower, upper = lower - margin, upper + margin
    rough = (upper - lower) / num_ticks
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= 0.999 * rough)
    first, last = math.floor(lower / step + 1e-9), math.ceil(upper / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    is_plain = PLAIN_STEPS[0] <= step <= PLAIN_STEPS[1]
    texts = (f"{k * step:,.{decimals}f}".replace("-", MINUS) if is_plain else number(k * step) for k in range(first, last + 1))
    ticks = tuple(zip((k * step for k in range(first, last + 1)), texts, strict=True))
    return Axis(first * step, last * step, ticks)


def axis_of_most(rows: Sequence[Iterable[float]], include: Iterable[float] = (), num_ticks: int = 5) -> Axis:
    """Return an axis that holds all rows but those without which it is several times shorter, and the rest readable.

    Args:
        rows: Values of each row; those that are not finite do not count.
        include: Values that the axis holds in any case.
        num_ticks: About so many ticks.
    """
    fixed = [value for value in include if math.isfinite(value)]
    shown = [[value for value in row if math.isfinite(value)] for row in rows]
    shown = [row for row in shown if row]

    def span(kept: Sequence[Sequence[float]]) -> float:
        values = [*fixed, *(value for row in kept for value in row)]
        return max(values) - min(values)

    while len(shown) > FEWEST_SHOWN:
        fewer = min((shown[:index] + shown[index + 1 :] for index in range(len(shown))), key=span)
        if not 0 < CROWDED * span(fewer) < span(shown):
            break
        shown = fewer
    return linear_axis([*fixed, *(value for row in shown for value in row)], num_ticks)


class Chart:
    """A chart that is drawn into, mark by mark; `markup` gives the SVG.

    Args:
        label: What it shows, for those who cannot see it.
        x: Horizontal axis.
        y: Vertical axis.
        height: Pixels.
        headroom: Pixels above the vertical axis, for annotations.
    """

    def __init__(self, label: str, x: Axis, y: Axis, height: int, headroom: int = 0):
        self.x, self.y, self.height, self.headroom = x, y, height, headroom
        attributes = {"class": "chart", "role": "img", "aria-label": label, "width": "100%", "height": str(height)}
        self.root = Element("svg", attributes)

    def markup(self) -> Markup:
        """Return the SVG."""
        return Markup(tostring(self.root, encoding="unicode"))

    def bars(self, edges: Vector, heights: Vector, style: str, titles: Sequence[str] = ()) -> None:
        """Draw bars between neighbouring edges, with tooltips."""
        left = 100 * self.x(edges)
        for index in np.flatnonzero(heights > 0).tolist():
            start, end, top = left[index], left[index + 1], self._y(heights[index])
            bar = self._add("rect", style, x=_percent(start), width=_percent(end - start), y=top, height=self._y(0) - top)
            if titles:
                SubElement(bar, "title").text = titles[index]

    def line(self, x: Vector, y: Vector, style: str) -> None:
        """Draw a line through the finite points."""
        frame = self._nested()
        good = np.isfinite(x) & np.isfinite(y)
        places = zip(WIDTH * self.x(x[good]), self._heights(y[good]), strict=True)
        path = " ".join(f"{column:.1f},{row:.1f}" for column, row in places)
        SubElement(frame, "polyline", {"class": style, "points": path})

    def area(self, x: Vector, lower: Vector, upper: Vector, style: str) -> None:
        """Fill between two lines."""
        columns, (low, high) = WIDTH * self.x(x), (self._heights(side) for side in (lower, upper))
        outline = [*zip(columns, high, strict=True), *zip(columns[::-1], low[::-1], strict=True)]
        points = " ".join(f"{column:.1f},{row:.1f}" for column, row in outline)
        SubElement(self._nested(), "polygon", {"class": style, "points": points})

    def point(self, x: float, y: float, style: str, radius: float = 4, title: str = "") -> None:
        """Draw a dot, if its place is a number."""
        if math.isfinite(x) and math.isfinite(y):
            dot = self._add("circle", style, cx=self._x(x), cy=self._y(y), r=radius)
            if title:
                SubElement(dot, "title").text = title

    def segment(self, x: tuple[float, float], y: tuple[float, float], style: str) -> None:
        """Draw a straight line between two points, if their places are numbers."""
        if all(map(math.isfinite, (*x, *y))):
            self._add("line", style, x1=self._x(x[0]), x2=self._x(x[1]), y1=self._y(y[0]), y2=self._y(y[1]))

    def estimate(self, estimate: Estimate, y: float, whisker: str, mark: str) -> None:
        """Draw a number with its interval; arrows at the ends of the axis for what lies beyond."""
        value, lower, upper = estimate
        self.segment((lower, upper), (y, y), whisker)
        if self.x.lower <= value <= self.x.upper:
            self.point(value, y, mark, title=interval(estimate).ends)
        row = self._y(y) + 4  # from the middle of a line of text to its base
        if min(value, lower) < self.x.lower:
            self.text(self.x.lower, row, LEFT if value >= self.x.lower else f"{LEFT} off scale", "tick", "start", -6)
        if max(value, upper) > self.x.upper:
            self.text(self.x.upper, row, RIGHT if value <= self.x.upper else f"off scale {RIGHT}", "tick", "end", 6)

    def vertical(self, x: float, style: str) -> None:
        """Draw a line from the bottom to the very top."""
        self._add("line", style, x1=self._x(x), x2=self._x(x), y1=0, y2=self.height)

    def text(self, x: float, row: float, words: str, style: str, anchor: str = "start", shift: float = 0) -> None:
        """Write at a place along the axis and `row` pixels from the top, moved by `shift` pixels."""
        label = self._add("text", style, x=self._x(x), y=row, dx=shift)
        label.set("text-anchor", anchor)
        label.text = words

    def frame(self, x_label: str = "", y_label: str = "") -> None:
        """Draw axes, their ticks and labels, outside the plotting area on all sides but the right."""
        base = self.height
        self._add("line", "axis", x1="0%", x2="100%", y1=base, y2=base)
        for value, words in self.x.ticks:
            self._add("line", "axis", x1=self._x(value), x2=self._x(value), y1=base, y2=base + 4)
            self.text(value, base + 17, words, "tick", "middle")
        for value, words in self.y.ticks:
            row = self._y(value)
            self._add("line", "grid", x1="0%", x2="100%", y1=row, y2=row)
            self.text(self.x.lower, row + 4, words, "tick", "end", -7)
        if x_label:
            self._add("text", "label", x="50%", y=base + 34, **{"text-anchor": "middle"}).text = x_label
        if y_label:
            self._add("text", "label", x="0%", y=-9, dx=-40).text = y_label

    def _add(self, tag: str, style: str, **attributes: object) -> Element:
        written = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in attributes.items()}
        return SubElement(self.root, tag, {"class": style, **written})

    def _nested(self) -> Element:
        size = {"width": "100%", "height": str(self.height), "viewBox": f"0 0 {WIDTH} {self.height}"}
        return SubElement(self.root, "svg", {**size, "preserveAspectRatio": "none"})

    def _x(self, value: float) -> str:
        return _percent(100 * float(self.x(value)))

    def _y(self, value: float) -> float:
        return float(self._heights(np.asarray(value, float)))

    def _heights(self, values: np.ndarray) -> np.ndarray:
        return np.round(self.height - (self.height - self.headroom) * self.y(values), 1)


def thinned(values: Vector, num_pieces: int = MAX_COLUMNS) -> tuple[Vector, Vector]:
    """Return what a line through many values looks like: places and values of the extremes of each of its pieces."""
    if len(values) <= 2 * num_pieces:
        return np.arange(len(values), dtype=float), values
    pieces = np.array_split(np.arange(len(values)), num_pieces)
    places = [sorted((piece[values[piece].argmin()], piece[values[piece].argmax()])) for piece in pieces]
    kept = np.ravel(places)
    return kept.astype(float), values[kept]


def _percent(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"
