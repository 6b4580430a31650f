"""The benchmarks import, their sides have the same problem, and ratios are what they say; peers run where they are installed."""

from __future__ import annotations

import importlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest

import samplers
from benchmarks import peers, timing
from benchmarks.__main__ import BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_imports_and_has_a_main(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").main)


@pytest.mark.slow
def test_density_written_by_hand_has_the_gradient_of_ours() -> None:
    from benchmarks import blackjax_hmc
    from benchmarks.digits import digits_posterior, starts

    posterior = digits_posterior()
    position = jax.tree.map(lambda x: x[0], starts(posterior))
    ours = jax.grad(samplers.log_density(posterior.target, posterior.batch, posterior.tempering))(position)
    by_hand = jax.grad(blackjax_hmc.log_density)(position, *posterior.batch.data)
    # Sums of 1,437 terms in float32, in another order: sqrt(1437) roundings of 6e-8 of the largest, ten times over.
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(by_hand), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(np.abs(a).max()))


def test_ratios_pair_the_repeats_of_one_round() -> None:
    figures = {"slow": [2.0, 40.0, 6.0], "fast": [1.0, 10.0, 2.0]}
    assert timing.ratios(figures, "slow", "fast") == (3.0, 2.0, 4.0)


def test_geometric_mean_has_students_interval() -> None:
    # Logarithms 0 and 0.2: mean 0.1, standard error 0.1, and t of one degree of freedom is 12.706 at 97.5 %.
    middle, low, high = (math.exp(0.1 + shift) for shift in (0, -1.2706, 1.2706))
    assert timing.geometric([1.0, math.exp(0.2)]) == f"{middle:.2f} ({low:.2f} to {high:.2f})"


def test_a_worker_answers_every_line_and_keeps_what_libraries_print_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo words\n"))

    def measure(case: str) -> list[str]:
        print("chatter")
        return case.split()

    timing.serve(measure)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [["one"], ["two", "words"]]


def test_a_worker_that_fails_tells_why() -> None:
    jax.devices()  # a process with JAX must not fork to pin another: its warning would fail this test
    cores = os.sched_getaffinity(0)
    with timing.server("benchmarks.no_such_module", core=0) as measure:
        assert os.sched_getaffinity(0) == cores
        with pytest.raises(RuntimeError, match="no_such_module"):
            measure("case")


def test_a_pinned_process_has_one_core() -> None:
    with timing._pinned(0):
        count = "import os; print(len(os.sched_getaffinity(0)))"
        assert subprocess.run([sys.executable, "-c", count], capture_output=True).stdout.strip() == b"1"


def test_a_missing_peer_is_skipped_with_the_way_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.interpreter(".venv-none") is None
    assert "requirements/README.md" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "case"),
    [("posteriors_sgmcmc", "SGLD 3,760"), ("posteriors_sgmcmc", "SGHMC 3,760"), ("devinterp_llc", "loader of batches; 3,760")],
)
def test_peers_on_pytorch_run_where_they_are_installed(module: str, case: str) -> None:
    from benchmarks.digits import hand_over

    if (python := peers.interpreter(".venv-torch")) is None:
        pytest.skip("no environment .venv-torch (requirements/README.md)")
    with (
        tempfile.TemporaryDirectory() as folder,
        timing.server(f"benchmarks.{module}", "there", hand_over(folder), core=0, python=python) as measure,
    ):
        assert 0 < measure(case) < 1  # seconds a step: milliseconds, on any machine
