"""Plans: counts equal what runs count, bytes equal what runs write."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

import samplers
from bayesnn import cli, pace, plan
from bayesnn.build import build_problem
from bayesnn.config import (
    HMC,
    MALA,
    MLP,
    NUTS,
    SGHMC,
    SWAG,
    Data,
    GaussianPrior,
    MCDropout,
    MeanFieldVI,
    ParallelTempering,
    ResNet,
    RunConfig,
    WarmUp,
)
from bayesnn.errors import UsageError
from bayesnn.hardware import HARDWARE
from bayesnn.launch import sample_into
from bayesnn.plan import LAUNCH_SECONDS, Known, gradient_flops, make_plan, print_plan

TINY = RunConfig(
    data=Data(name="wine"),
    model=MLP(widths=(7,)),
    prior=GaussianPrior(scale=0.5),
    sampler=HMC(step_size=0.05),
    warmup=WarmUp(steps=0),
    chains=2,
    draws=6,
)
NUM_TRAIN, NUM_FEATURES, NUM_CLASSES = 142, 13, 3


def test_flops_by_hand():
    """Two a multiplication: a layer's forward pass, the gradient of its weights, and of its inputs but for the first layer."""
    products = NUM_TRAIN * (2 * NUM_FEATURES * 7 + 3 * 7 * NUM_CLASSES)
    counted = gradient_flops(build_problem(TINY))
    # Activations, softmax and prior come on top: some thirty operations for each of ten units and examples.
    assert 2 * products < counted < 2 * products + 100 * NUM_TRAIN * (7 + NUM_CLASSES)


def test_flops_do_not_depend_on_the_microbatch():
    whole, parts = (gradient_flops(build_problem(TINY.model_copy(update={"microbatch": m}))) for m in (None, 71))
    assert abs(parts / whole - 1) < 0.05  # the prior is counted once for each part


FITS = [SWAG(batch_size=20, period=1, rank=2), MeanFieldVI(batch_size=20, samples=2), MCDropout(batch_size=None)]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", FITS, ids=lambda s: s.kind)
def test_counts_of_fits_are_those_of_the_run(sampler, tmp_path):
    config = TINY.model_copy(update={"sampler": sampler, "warmup": WarmUp(steps=30), "draws": 2})
    assert sample_into(tmp_path / "it", "it", config) == "complete"
    status = json.loads((tmp_path / "it/status.json").read_text())
    assert make_plan(config, "h200").gradients == pytest.approx(status["gradients"] + status["warmup_gradients"], rel=1e-5)
    assert make_plan(config, "h200").gradients_a_draw == 0


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [HMC(step_size=0.05), MALA(), SGHMC(batch_size=20)], ids=lambda s: s.kind)
def test_counts_and_bytes_are_those_of_the_run(sampler, tmp_path):
    config = TINY.model_copy(update={"sampler": sampler, "thin": 3, "draws": 40})
    plan = make_plan(config, "h200")
    source = tmp_path / "experiment.py"
    body = f"    return RunConfig.model_validate_json({config.model_dump_json()!r})"
    source.write_text(f"from bayesnn.config import RunConfig\n\ndef it():\n{body}\n")
    assert cli.main(["run", f"{source}:it", "--runs", str(tmp_path / "runs")]) == 0
    status = json.loads((tmp_path / "runs/it/status.json").read_text())
    # Jittered trajectories end on whole steps: half a step of 16 on average, and 120 of them spread by +-20 %.
    assert abs(status["gradients"] / plan.gradients - 1) < 0.02
    store = tmp_path / "runs/it/shards/0-2/draws.zarr"
    files = [file for group in ("posterior", "functions", "sample_stats") for file in store.glob(f"{group}/*/c/**/*")]
    blocks = [file for file in files if file.is_file()]
    checksum = 4  # bytes of each block's
    assert sum(file.stat().st_size - checksum for file in blocks) == plan.run_bytes


def test_what_runs_have_in_common_is_built_and_compiled_once(monkeypatch):
    built, lowered = [], []
    build, lower = plan.build_problem, plan._lowered_gradient
    monkeypatch.setattr(plan, "build_problem", lambda config: built.append(config) or build(config))
    monkeypatch.setattr(plan, "_lowered_gradient", lambda problem: lowered.append(problem) or lower(problem))
    changes = ({}, {"sampler": MALA()}, {"sampler": SGHMC(batch_size=20), "draws": 40}, {"temperature": 0.5}, {"microbatch": 71})
    changes += ({"microbatch": 71, "prior": GaussianPrior(scale=1.0)},)
    known = Known()
    together = [make_plan(TINY.model_copy(update=change), "h200", known=known) for change in changes]
    assert (len(built), len(lowered)) == (3, 2)  # a prior is another problem with the same gradient, a temperature is none
    assert together == [make_plan(TINY.model_copy(update=change), "h200") for change in changes]


def test_time_on_named_hardware():
    plan = make_plan(TINY.model_copy(update={"chains": 10**9}), "a100", devices=8, efficiency=0.5)
    assert plan.seconds == pytest.approx(
        plan.gradients * plan.gradient_flops / (8 * 0.5 * HARDWARE["a100"].peaks["highest"].flops)
    )
    assert plan.products == "float32"
    small = make_plan(TINY, "a100")
    assert small.seconds == pytest.approx(small.gradients / 2 * LAUNCH_SECONDS)


@pytest.mark.parametrize(
    ("change", "hardware", "peak"),
    [
        ({}, "h200", "float32"),
        ({"matmul_precision": "high"}, "h200", "TF32"),
        ({"matmul_precision": "default"}, "tpu-v3", "bfloat16"),
        ({"matmul_precision": "high"}, "tpu-v3", "three-pass bfloat16"),
        ({"model": ResNet(compute_dtype="bfloat16")}, "tpu-v3", "bfloat16"),
    ],
)
def test_the_peak_is_that_of_the_products(change, hardware, peak):
    config, device = TINY.model_copy(update=change), HARDWARE[hardware]
    assert device.peak(config).products == peak
    assert device.peaks["highest"].flops <= device.peak(config).flops <= device.peaks["bfloat16"].flops


@pytest.mark.parametrize(
    ("data_blocks", "busy"),
    [(1, 3), (4, 12), (128, 384)],  # of 512 devices, for 3 chains
)
def test_only_devices_that_have_work_make_it_faster(data_blocks, busy, monkeypatch):
    monkeypatch.setattr(plan, "LAUNCH_SECONDS", 0.0)
    config = TINY.model_copy(update={"chains": 3, "data_blocks": data_blocks})
    many, one = (make_plan(config, "tpu-v3", devices=number) for number in (512, 1))
    assert (many.devices, one.devices) == (busy, 1)
    assert many.seconds == pytest.approx(one.seconds / busy)


def test_idle_devices_are_told(capsys):
    assert cli.main(["plan", "digits-hmc", "--hardware", "a100", "--devices", "8"]) == 0
    assert "4 of 8 devices would be idle: more chains or --data-blocks" in " ".join(capsys.readouterr().out.split())


def test_nuts_cannot_be_planned_and_says_so(capsys):
    assert cli.main(["plan", "digits-nuts", "--hardware", "h100"]) == 0
    printed = capsys.readouterr().out
    assert "the sampler decides" in printed
    assert "nan" not in printed
    assert make_plan(TINY.model_copy(update={"sampler": NUTS()}), "h100").num_params == (13 + 1) * 7 + (7 + 1) * 3


def test_lengths_that_a_warm_up_finds_cannot_be_planned():
    across = make_plan(TINY.model_copy(update={"warmup": WarmUp(steps=40, scheme="cross-chain")}), "h100")
    assert all(math.isnan(x) for x in (across.gradients_a_draw, across.gradients, across.seconds))


def test_failed_trajectories_that_are_tried_again_are_planned_for():
    capture = Console(record=True, width=120)
    once, again = (
        make_plan(TINY.model_copy(update={"sampler": HMC(step_size=0.01, delayed_rejection=is_on)}), "h100")
        for is_on in (False, True)
    )
    for one in (once, again):
        print_plan(capture, one, "h100", 1)
    assert again.gradients_a_draw == pytest.approx(1.2 * once.gradients_a_draw)
    assert capture.export_text().count("as if 10% of the trajectories failed and were tried again") == 1


def test_the_step_size_at_which_gradients_are_counted_is_said():
    capture = Console(record=True, width=120)
    for steps in (0, 10):
        print_plan(capture, make_plan(TINY.model_copy(update={"warmup": WarmUp(steps=steps)}), "h100"), "h100", 1)
    assert capture.export_text().count("the step size with which the warm-up begins, 0.05") == 1


@pytest.mark.slow
def test_time_here_is_measured():
    plan = make_plan(TINY)
    assert plan.efficiency is None
    assert 0 < plan.seconds < 60


LONG = {
    "hmc": {"sampler": HMC(step_size=1e-4, max_num_steps=70_000)},
    "ladder": {"sampler": ParallelTempering(rungs=3, step_size=1e-4, max_num_steps=70_000)},
    "mala": {"sampler": MALA(), "thin": 9000},
}


def on_a_clock(monkeypatch, config, draw_seconds, gradient_seconds):
    """Plan a run on this machine by a clock on which every draw and every gradient of it takes so long.

    Returns:
        The plan, and the most gradients that any timed draw had.
    """
    now, counted, sample = [0.0], [], samplers.sample

    def take_time(*arguments, **options):
        result = sample(*arguments, **options)
        by_draw = result.info.num_gradients.mean(axis=0)
        counted.append(by_draw.max())
        now[0] += draw_seconds * by_draw.size + gradient_seconds * by_draw.sum()
        return result

    monkeypatch.setattr(samplers, "sample", take_time)
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return make_plan(config), max(counted)


@pytest.mark.parametrize(
    "change", [pytest.param(change, id=name, marks=() if name == "hmc" else pytest.mark.slow) for name, change in LONG.items()]
)
def test_a_long_draw_is_timed_in_part(change, monkeypatch):
    config = TINY.model_copy(update=change)
    planned, counted = on_a_clock(monkeypatch, config, 3.0, 0.5)
    assert planned.gradients_a_draw > 7000
    assert counted < 200
    assert planned.timed_gradients == pytest.approx(counted)
    # Some roundings: each chain has a device of its own, and the clock is linear.
    assert planned.seconds == pytest.approx(config.draws * (3.0 + 0.5 * planned.gradients_a_draw), rel=1e-4)
    capture = Console(record=True, width=120)
    print_plan(capture, planned, "here", 1)
    assert f"timed on draws of {counted:.3g} gradients, and scaled" in capture.export_text()


def test_short_draws_are_timed_whole(monkeypatch):
    planned, counted = on_a_clock(monkeypatch, TINY, 1e-2, 1e-3)
    assert planned.timed_gradients is None
    # Of several draws, whose lengths spread by +-20 % about their mean.
    assert planned.seconds == pytest.approx(TINY.draws * (1e-2 + 1e-3 * planned.gradients_a_draw), rel=0.1)
    assert counted > 0.8 * planned.gradients_a_draw


@pytest.mark.parametrize(
    ("arguments", "message"), [(("h20",), "mean 'h200'"), (("h200", 0), "devices"), (("h200", 1, 2.0), "efficiency")]
)
def test_bad_input(arguments, message):
    with pytest.raises(UsageError, match=message):
        make_plan(TINY, *arguments)
