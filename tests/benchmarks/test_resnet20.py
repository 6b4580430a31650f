"""The benchmark that waits for a GPU runs here, on a network and images that take seconds."""

from __future__ import annotations

import re

import pytest

from benchmarks.resnet20 import Size, table

TINY = Size(
    images=64,
    side=8,
    depth=8,
    width=4,
    microbatches=(32,),
    leapfrogs=2,
    trajectories=2,
    descent=2,
    matrix=64,
    repeats=1,
)


@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.slow
def test_it_tells_times_memory_and_energy_errors_at_each_precision(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path))  # random pixels, wherever this runs
    text = "\n".join(table(TINY))
    assert "64 images of random pixels, 8 x 8" in text
    for precision in ("float32", "bfloat16"):
        cost, hmc = re.findall(rf"^\| {precision} \| (.*) \|$", text, re.MULTILINE)
        microbatch, seconds, rate, share, memory = (cell.split()[0] for cell in cost.split(" | "))
        assert microbatch == "32"
        assert min(float(seconds), float(rate), float(memory)) > 0
        assert float(share.rstrip("%")) > 0
        overhead, error, acceptance = (float(cell.split()[0]) for cell in hmc.split(" | "))
        assert overhead > 0
        assert 0 <= error < 1  # nats: at a step size of 1e-5, what is left is rounding, in float32 often none
        assert 0 < acceptance <= 1
