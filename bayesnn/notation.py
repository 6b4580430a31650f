"""Numbers as people read them: three digits, thousands apart, intervals to the digits that they justify."""

from __future__ import annotations

import math
from typing import NamedTuple

from diagnostics.claims import percent
from diagnostics.estimates import Estimate

LARGE = 1e9  # from here on numbers are written with exponents
MISSING = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number to some significant digits; what is missing or NaN is a dash.

    Example:
        >>> number(1234.5), number(0.012345), number(-2.0), number(1e12), number(float("inf")), number(None)
        ('1,234', '0.0123', '\u22122', '1e+12', 'infinite', '\u2014')
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    text = f"{value:,.0f}" if 10**digits <= abs(value) < LARGE else f"{value:.{digits}g}"
    return text.replace("-", MINUS)


def share(value: float | None) -> str:
    """Write a share as a percentage; what is missing or NaN is a dash.

    Example:
        >>> share(0.12345), share(1e-9), share(1 - 1e-9), share(None)
        ('12.3 %', '< 0.01 %', '> 99.99 %', '\u2014')
    """
    if value is None or math.isnan(value):
        return MISSING
    return "> 99.99 %" if 1 - 1e-4 < value < 1 else percent(value).replace("below", "<")


class Interval(NamedTuple):
    """An estimate in words.

    Attributes:
        value: The point estimate.
        ends: The ends of its interval; empty if it has none.
    """

    value: str
    ends: str


def interval(estimate: Estimate, unit: float = 1, is_signed: bool = False) -> Interval:
    """Write an estimate to two digits of the width of its interval.

    Args:
        estimate: The number and its interval.
        unit: In what it is written, 0.01 for percent.
        is_signed: Whether positive numbers carry their sign, too, as differences do.

    Example:
        >>> interval(Estimate(0.11978, 0.09304, 0.14736))
        Interval(value='0.120', ends='0.093 to 0.147')
        >>> interval(Estimate(0.9778, 0.9611, 0.9917), unit=0.01)
        Interval(value='97.8', ends='96.1 to 99.2')
    """
    value, lower, upper = (part / unit for part in estimate)
    width = upper - lower
    if not math.isfinite(width):
        return Interval(number(value), "")
    digits = min(max(0, 1 - math.floor(math.log10(width))), 6) if width > 0 else 3
    sign = "+" if is_signed else ""
    texts = (f"{part:{sign},.{digits}f}".replace("-", MINUS) for part in (value, lower, upper))
    value_text, lower_text, upper_text = texts
    return Interval(value_text, f"{lower_text} to {upper_text}")


def with_prefix(value: float, unit: str) -> str:
    """Write a number to three digits with a prefix of the SI.

    Example:
        >>> with_prefix(274042, "B"), with_prefix(12.6e12, "FLOP"), with_prefix(0.5, "")
        ('274 kB', '12.6 TFLOP', '0.5 ')
    """
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
