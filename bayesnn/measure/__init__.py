"""What needs to sample more than the run did: learning coefficients, basins, evidence. Results lie in the run folder.

Importing the package, and the settings of a measure, imports no JAX: the command line asks for them before it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from bayesnn.config import Frozen
    from bayesnn.load import LoadedRun
    from diagnostics.claims import Finding

    type Function = Callable[[LoadedRun, Frozen, Console], tuple[xr.DataTree, Sequence[Finding]]]


class Entry(NamedTuple):
    """Where a measure is written: the names are imported when they are first used.

    Attributes:
        settings: `module:class` of its settings, a `bayesnn.config.Frozen` whose defaults work; the module imports no JAX.
        function: `module:function`, (run, settings, console) -> (result, findings).
    """

    settings: str
    function: str

    def settings_class(self) -> type[Frozen]:
        """Import the class of its settings."""
        return _load(self.settings)

    def load(self) -> Function:
        """Import the function."""
        return _load(self.function)


MEASURES = {
    "llc": Entry("bayesnn.measure.llc:LLC", "bayesnn.measure.llc:measure"),
    "basins": Entry("bayesnn.measure.basins:Basins", "bayesnn.measure.visits:measure"),
    "evidence": Entry("bayesnn.measure.evidence:Evidence", "bayesnn.measure.evidence:measure"),
    "shift": Entry("bayesnn.measure.shift:Shift", "bayesnn.measure.shift:measure"),
    "ood": Entry("bayesnn.measure.ood:OOD", "bayesnn.measure.ood:measure"),
    "resonance": Entry("bayesnn.measure.resonance:Resonance", "bayesnn.measure.resonance:measure"),
    "energy-slope": Entry("bayesnn.measure.energy_slope:EnergySlope", "bayesnn.measure.energy_slope:measure"),
    "directions": Entry("bayesnn.measure.directions:Directions", "bayesnn.measure.directions:measure"),
    "acceptance": Entry("bayesnn.measure.acceptance:Acceptance", "bayesnn.measure.acceptance:measure"),
    "gradient-noise": Entry("bayesnn.measure.gradient_noise:GradientNoise", "bayesnn.measure.gradient_noise:measure"),
}


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
