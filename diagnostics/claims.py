"""A claim is a function from runs to a finding; findings are what audits are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import xarray as xr

type Kind = Literal["health", "hypothesis"]
type Claim = Callable[[Mapping[str, xr.DataTree]], Finding]  # one tree a run; health claims take a single run

VERDICTS = {
    "health": ("pass", "fail", "inconclusive", "not applicable"),
    "hypothesis": ("supported", "contradicted", "inconclusive", "not applicable"),
}


@dataclass(frozen=True)
class Finding:
    """What an audit says about one claim.

    Attributes:
        claim: Name of the claim.
        kind: "health": can these draws be trusted? "hypothesis": does a statement of a paper hold for them?
        verdict: One of `VERDICTS` of that kind.
        value: The number that the verdict rests on; None if it could not be computed (NaN becomes None).
        interval: Uncertainty of the value, if known.
        bound: What the value was held against.
        note: Sentences: what was measured, against what, what it means, what to do.

    Raises:
        ValueError: An unknown kind, or a verdict that is not one of that kind.
    """

    claim: str
    kind: str
    verdict: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    bound: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in VERDICTS:
            raise ValueError(f"kind must be one of {', '.join(VERDICTS)}; got {self.kind!r}")
        if self.verdict not in VERDICTS[self.kind]:
            raise ValueError(
                f"the verdict on a {self.kind} claim must be one of {', '.join(VERDICTS[self.kind])}; got {self.verdict!r}"
            )
        ends = () if self.interval is None else tuple(_number(end) for end in self.interval)
        object.__setattr__(self, "value", _number(self.value))
        object.__setattr__(self, "bound", _number(self.bound))
        object.__setattr__(self, "interval", ends if ends and None not in ends else None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that any JSON writer takes; infinities become the strings "inf" and "-inf"."""
        data = asdict(self)
        data["value"], data["bound"] = _encode(self.value), _encode(self.bound)
        data["interval"] = None if self.interval is None else [_encode(end) for end in self.interval]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """Return the finding that `to_dict` wrote.

        Raises:
            ValueError: Keys that a finding does not have, or missing ones.
        """
        names = {field.name for field in fields(cls)}
        if unknown := set(data) - names:
            raise ValueError(f"a finding has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(names))}")
        if missing := {"claim", "kind", "verdict"} - set(data):
            raise ValueError(f"a finding needs {', '.join(sorted(missing))}")
        interval = data.get("interval")
        return cls(**{**data, "interval": None if interval is None else tuple(interval)})


def _number(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return None if math.isnan(number) else number


def _encode(value: float | None) -> float | str | None:
    return str(value) if value is not None and math.isinf(value) else value


def percent(share: float) -> str:
    """Write a share for reading: three digits, nothing below a hundredth of a percent.

    Example:
        >>> percent(0.12345), percent(1.0), percent(0.0), percent(1e-9)
        ('12.3 %', '100 %', '0 %', 'below 0.01 %')
    """
    return "below 0.01 %" if 0 < share < 1e-4 else f"{100 * share:.3g} %"


# Intervals of less come from rounding.
NO_WIDTH = 1e-9


def interval_text(value: float, lower: float, upper: float) -> str:
    """Write a number with its interval, to the digits that the interval justifies.

    Example:
        >>> interval_text(1.023456, 0.9912, 1.0523)
        '1.023 (95 % interval 0.991 to 1.052)'
    """
    width = upper - lower
    digits = max(0, 1 - math.floor(math.log10(width))) if NO_WIDTH < width < math.inf else 3
    return f"{value:.{digits}f} (95 % interval {lower:.{digits}f} to {upper:.{digits}f})"
