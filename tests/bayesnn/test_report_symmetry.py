"""The report's section on symmetry: there where a network declares one, right about planted copies, bounded in its cost."""

import numpy as np
import pytest

from bayesnn.report import symmetry as section
from diagnostics.summary import summarise
from diagnostics.trees import make_tree
from diagnostics.units import UnitGroup, copy_units, to_json
from tests.bayesnn.simulated import classification, ensemble, page_of

GROUP = UnitGroup("layer_0", (("layer_0.bias", 0), ("layer_0.kernel", 1)), ())


def declared(arrays):
    return arrays | {"attrs": arrays["attrs"] | {"architecture": to_json((GROUP,))}}


def in_copies(arrays):
    """The same run, each chain around one network, and in another copy of it."""
    rng = np.random.default_rng(0)
    base = {name: rng.normal(size=array.shape[2:]) for name, array in arrays["posterior"].items()}
    near = {name: base[name] + 0.1 * array for name, array in arrays["posterior"].items()}
    shape = near["layer_0.bias"].shape
    order = np.broadcast_to(np.stack([np.roll(np.arange(4), chain) for chain in range(4)])[:, None], shape)
    return arrays | {"posterior": copy_units(near, GROUP, order, np.ones((*shape[:2], 0, 4), np.int8))}


def test_the_section_shows_what_alignment_removes():
    tree = make_tree(**declared(in_copies(classification())))
    found = section.symmetry(tree, summarise(tree))
    total = next(row for row in found.rows if row.is_total)
    assert float(total.rhat[0]) > 1.3
    assert float(total.rhat[1]) < 1.02
    assert float(total.removed.value) > 0.99
    assert found.moves == [("layer_0", "0", "0")]
    assert found.census.verdict == "inconclusive"
    page = page_of(("run", declared(in_copies(classification()))))
    assert "Do they sit in copies of one place?" in page
    assert found.census.note in page


@pytest.mark.parametrize("arrays", [classification(), declared(ensemble()), declared(classification(num_chains=1))])
def test_without_a_declaration_or_chains_to_compare_there_is_none(arrays):
    assert "copies of one place" not in page_of(("run", arrays))


def test_draws_that_are_not_finite_or_too_many_are_not_aligned(monkeypatch):
    arrays = declared(classification())
    tree = make_tree(**arrays)
    summary = summarise(tree)
    monkeypatch.setattr(section, "MAX_VALUES", 100)
    assert section.symmetry(tree, summary).too_large
    assert "diagnostics.aligned_summary" in page_of(("run", arrays))
    arrays["posterior"]["layer_0.bias"][0, 0, 0] = np.nan
    assert section.symmetry(make_tree(**arrays), summary) is None
