"""How draws are grouped and named, in memory and on disk."""

from __future__ import annotations

import numpy as np

from samplers import Result

type Groups = dict[str, dict[str, np.ndarray]]


def by_group(result: Result) -> Groups:
    """Return what a problem's save function and the sampler's Info say of each draw: posterior, functions, sample_stats."""
    assert result.info is not None
    draws = dict(result.draws)
    groups: Groups = {group: draws.pop(group) for group in ("posterior", "functions") if group in draws}
    info = result.info._asdict()
    groups["sample_stats"] = draws | {("diverging" if name == "is_divergent" else name): x for name, x in info.items()}
    return groups


def by_name(result: Result) -> dict[str, np.ndarray]:
    """Return the same, named `group/variable`."""
    return {f"{group}/{name}": x for group, values in by_group(result).items() for name, x in values.items()}
