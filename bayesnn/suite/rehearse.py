"""A suite's rehearsal: the first steps of every run on a few examples, before anything large is paid for."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from bayesnn.build import build_method
from bayesnn.config import Optimise, RunConfig
from bayesnn.imports import is_import_path
from bayesnn.plan import Known, problem_key
from bayesnn.progress import duration
from bayesnn.run_folder import RunFolder
from bayesnn.suite.execute import absent_data, reason_of
from bayesnn.suite.suite import Suite

EXAMPLES, TEST_POINTS, WARM_UP, DRAWS = 8, 4, 8, 2
# Of samplers: the longest step, the fewest examples that still make two minibatches, and what would need a longer fit.
SHORTER: Mapping[str, int] = {
    "max_num_steps": 2,
    "max_num_doublings": 1,
    "batch_size": EXAMPLES // 2,
    "cycle_length": 2,
    "rank": 2,
}


def rehearsal(config: RunConfig) -> RunConfig:
    """Return a run with its own network, prior, likelihood and sampler, cut to the first steps of one chain on a few examples."""

    def at_most(limits: Mapping[str, int], settings: Any) -> dict[str, int]:
        found = {name: getattr(settings, name, None) for name in limits}
        return {name: min(value, limits[name]) for name, value in found.items() if value is not None}

    is_optimised = isinstance(config.sampler, Optimise)
    changes: dict[str, Any] = {
        "sampler": config.sampler.model_copy(update=at_most(SHORTER, config.sampler)),
        "warmup": config.warmup.model_copy(update=at_most({"steps": WARM_UP}, config.warmup)),
        "chains": 2 if config.warmup.scheme == "cross-chain" else 1,
        "draws": 1 if is_optimised else DRAWS,
        "thin": DRAWS if is_optimised else 1,
    }
    if config.density is None:
        changes |= at_most({"microbatch": EXAMPLES // 2, "data_blocks": 2}, config) | {"test_points": TEST_POINTS}
        if not is_import_path(config.data.name):
            num_train = min(config.data.num_train or EXAMPLES, EXAMPLES)
            changes["data"] = config.data.model_copy(update={"num_train": num_train})
    return RunConfig.model_validate(config.model_copy(update=changes).model_dump())


def rehearse_suite(suite: Suite, console: Console) -> dict[str, str] | None:
    """Build every run of a suite, and take its first steps; nothing is kept. Runs on the same problem come one after the other.

    Args:
        suite: What to rehearse.
        console: Where progress goes.

    Returns:
        Why runs failed, by name; None when it was interrupted.
    """
    configs, failures, absent = {name: one.config for name, one in suite.planned().items()}, dict[str, str](), 0
    known, why_absent = Known(), functools.cache(absent_data)
    with tempfile.TemporaryDirectory() as folder:
        for place, (name, config) in enumerate(sorted(configs.items(), key=lambda item: problem_key(item[1])), 1):
            console.print(f"[bold]{place}/{len(configs)}[/] {name}")
            if reason := why_absent(config.data):
                absent += 1
                console.print(f"  not run: its data are not at hand: {reason}", markup=False)
                continue
            began = time.monotonic()
            try:
                build_method(config, known.problem(config))  # uncut: cutting may hide settings that do not fit together
                if not _take_first_steps(Path(folder) / name, config, console):
                    return None
            except Exception as error:  # whatever goes wrong in one run must not end the others
                failures[name] = reason_of(error)
                console.print(f"  failed: {failures[name]}", markup=False)
            else:
                console.print(f"  done after {duration(time.monotonic() - began)}")
    went = len(configs) - len(failures) - absent
    console.print(f"{went} of {len(configs)} runs took their first steps; {len(failures)} failed, {absent} have no data here.")
    return failures


def _take_first_steps(path: Path, config: RunConfig, console: Console) -> bool:
    """Return whether a run came to the end of its rehearsal; False when it was interrupted."""
    from bayesnn import launch

    if launch.sample_into(path, path.name, rehearsal(config)) != "complete":
        return False
    [shard] = RunFolder(path).shards()
    problem = RunFolder(path).manifest["problem"]
    if any(shard.read_commit().num_nonfinite):
        raise ArithmeticError("a chain left the finite numbers")
    console.print(f"  {problem['num_params']:,} parameters, {config.sampler.kind}", markup=False)
    return True
