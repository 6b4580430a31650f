"""Results of every measure as `bayesnn measure` stores them, made of random numbers: what the report has to show."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesnn.measure.store import Measure
from diagnostics import regions
from diagnostics.claims import Finding
from diagnostics.directions import along_leading
from diagnostics.resonance import resonance_finding, resonance_table
from diagnostics.step_error import acceptance_finding, energy_order, smoothness_finding
from diagnostics.trees import make_tree
from tests.bayesnn.simulated import classification


def resonance():
    rng = np.random.default_rng(0)
    fixed, jittered = ({"directions": draws, "functions": draws[..., :5]} for draws in rng.normal(size=(2, 4, 100, 20)))
    fixed["directions"][..., :10] += rng.normal(size=(4, 1, 10))  # half of them stand apart, until they are jittered
    table = resonance_table(fixed, jittered)
    return Measure(xr.DataTree(table), {"draws": 100}, [resonance_finding(table, "directions")])


def directions():
    spread = xr.Dataset(
        {"spread": 0.98, "spread_lower": 0.95, "spread_upper": 1.02}, attrs={"kernel": "layer_0.kernel", "num_directions": 2}
    )
    tree = xr.DataTree.from_dict({"leading": along_leading(make_tree(**classification()), 3), "null": spread})
    return Measure(tree, {}, [Finding("null-directions", "health", "pass", 0.98, (0.95, 1.02), 1.0, "As the prior.")])


def energy_slope():
    step_size = 0.5 ** np.arange(4)
    errors = np.square(step_size)[:, None] * np.random.default_rng(1).normal(size=8)
    order = energy_order(step_size, errors)
    columns = dict(zip(("order", "order_lower", "order_upper"), order.order, strict=True))
    return Measure(xr.DataTree(xr.Dataset(columns)), {}, [smoothness_finding(order)])


def acceptance():
    rates = np.clip(np.random.default_rng(4).normal(0.93, 0.05, (4, 16)), 0, 1)
    return Measure(xr.DataTree(xr.Dataset({"acceptance_rate": (("chain", "draw"), rates)})), {}, [acceptance_finding(rates)])


def gradient_noise():
    columns = {
        f"{name}{end}": ("place", value + shift + np.array([0.0, 0.3]))
        for name, value in (("stable", 1.4), ("hill", 2.2))
        for end, shift in (("", 0), ("_lower", -0.11), ("_upper", 0.12))
    }
    table = xr.Dataset(columns | {"chain": ("place", [0, 3]), "draw": ("place", [17, 39])})
    return Measure(xr.DataTree(table), {}, [Finding("noise-has-variance", "hypothesis", "contradicted", note="Heavy.")])


def _evidence():
    value, error = np.array([-41.37, -41.52, -43.9]), np.array([0.11, 0.14, 0.6])
    return xr.Dataset(
        {
            "log_evidence": ("estimator", value),
            "lower": ("estimator", value - 2 * error),
            "upper": ("estimator", value + 2 * error),
            "by_system": ("system", [-41.3, -41.6, -41.2, -41.4]),
            "round_trips": ("ladder", [3, 11]),
            "gradients": ("road", [12345, 23456]),
        },
        {"estimator": ["tempered SMC", "stepping stone", "integration"], "road": ["tempered SMC", "parallel tempering"]},
    )


def evidence():
    agree = Finding("evidence-methods-agree", "health", "pass", 0.15, (-0.2, 0.5), 1.0, "They agree.")
    return Measure(xr.DataTree.from_dict({"evidence": _evidence()}), {"rungs": 16}, [agree])


def basins():
    rng = np.random.default_rng(2)
    labels = rng.choice(3, (8, 200), p=(0.5, 0.3, 0.2))
    particles = xr.Dataset(
        {
            "label": (("system", "particle"), rng.choice(3, (4, 300), p=(0.5, 0.3, 0.2))),
            "log_weight": (("system", "particle"), np.zeros((4, 300))),
        }
    )
    replicas = xr.Dataset({"label": (("ladder", "replica"), rng.choice(3, (4, 300), p=(0.5, 0.3, 0.2)))})
    found = _evidence()
    masses = [
        regions.masses_from_weights(
            "SMC", *(particles[name].values for name in ("label", "log_weight")), found["by_system"].values, 3
        ),
        regions.masses_from_systems("tempering", regions.visit_shares(replicas["label"].values, 3)),
    ]
    log_predictive = rng.normal(-1.4, 0.3, (3, 40))
    minima = {
        "log_density": ("minimum", np.zeros(4)),
        "number": ("minimum", [0, 1, 1, 2]),
        "barrier": (("reference", "other"), 7.5 * (1 - np.eye(3))),
    }
    groups = {
        "regions": regions.regions_table(labels, masses, prior_volume=np.array([0.6, 0.25, 0.15])),
        "labels": xr.Dataset({"run": (("chain", "draw"), labels)}),
        "predictions": xr.Dataset({"log_predictive": (("region", "point"), log_predictive)}),
        "particles": particles,
        "replicas": replicas,
        "minima": xr.Dataset(minima),
        "weights": regions.regions_table(2 - labels, masses),
        "evidence": found,
    }
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {"minima_per_100_draws": 75.0, "classifier": "3 clusters of functions"}
    findings = [
        regions.regions_mix(labels, 3, masses),
        regions.regions_visited_by_mass(labels, masses),
        regions.light_regions_over_visited(labels, *masses),
        regions.predictions_robust(log_predictive, labels, masses),
    ]
    return Measure(tree, {"systems": 8}, findings)


def llc():
    def centre(mean, forms):
        errors = np.linspace(0.1, 0.3, len(forms))
        table = {"value": ("form", mean + np.arange(len(forms))), "standard_error": ("form", errors)}
        tree = xr.DataTree.from_dict({"estimates": xr.Dataset(table, {"form": forms})})
        tree.attrs = {"num_params": 30}
        return tree

    tree = xr.DataTree(children={"centre_0": centre(7.0, ["mean", "two_temperature", "wbic"]), "centre_1": centre(9.0, ["mean"])})
    tree["fluctuation"] = xr.DataTree(xr.Dataset({"singular_fluctuation": 6.5, "singular_fluctuation_error": 0.25}))
    findings = [
        Finding("centre 0: learning coefficient", "health", "pass", 7.0, (6.8, 7.2), None, "Found."),
        Finding("centre 1: minimum", "health", "fail", -1.0, None, 0.0, "Not a minimum."),
    ]
    return Measure(tree, {"centres": 2}, findings)


def ood():
    areas = np.array([[[0.91, 0.88, 0.94], [0.71, 0.66, 0.75]]])
    coordinates = {"set": ["notmnist"], "score": ["confidence", "entropy"], "bound": ["value", "lower", "upper"]}
    return Measure(xr.DataTree(xr.Dataset({"auroc": (("set", "score", "bound"), areas)}, coordinates)), {}, [])


def shift():
    accuracy = np.random.default_rng(3).random((2, 2, 100)) < np.array([[[0.9], [0.9]], [[0.8], [0.4]]])
    table = xr.Dataset(
        {"accuracy": (("corruption", "intensity", "point"), accuracy.astype(float))},
        {"corruption": ["clean", "fog"], "intensity": [1, 5]},
    )
    return Measure(xr.DataTree(table), {}, [])


def everything():
    """All measures by their names on the command line."""
    functions = (shift, ood, llc, evidence, basins, acceptance, gradient_noise, energy_slope, directions, resonance)
    return {function.__name__.replace("_", "-"): function() for function in functions}
