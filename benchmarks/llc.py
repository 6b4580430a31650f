"""Learning coefficients of deep linear networks of growing size, against Aoyagi's values: `python -m benchmarks.llc [WIDTH ...]`.

The centre is a true network whose layers have singular values of 1 and whose middle layer is half as wide: the product has its
rank, and the point is regular, so that Aoyagi's value is the local one. Two chains at each of two temperatures, from the truth.
"""

from __future__ import annotations

import functools
import sys
import time

# About a thousand, ten thousand and a hundred thousand parameters; 590 has a million, and takes a third of an hour.
WIDTHS = (18, 58, 185)
NUM_DATA = 10**6  # t, at the inverse temperature 1: the population loss has no other n
BURN_IN, DRAWS, THIN = 300, 400, 8  # losses forget in 25 to 45 steps; a verdict wants 50 effective draws a chain


def main(widths: tuple[int, ...] = WIDTHS) -> None:
    """Print estimates, and the biases that explain them."""
    import jax
    import jax.numpy as jnp

    import samplers
    from bayesnn.measure.learning import learning_coefficient
    from bayesnn.measure.llc import LocalSampling

    def log_likelihood(layers: list[jax.Array], rows: jax.Array, truth: jax.Array) -> jax.Array:
        product = functools.reduce(lambda before, layer: layer @ before, layers)
        return jnp.full(rows.shape, -0.5 * jnp.sum((product - truth) ** 2))

    print(f"\nLearning coefficients of deep linear networks, t = {NUM_DATA:.0e}, {BURN_IN + DRAWS * THIN:,} steps from the truth")
    print(
        f"  {'widths':<22}{'params':>9}{'Aoyagi':>10}{'estimate':>10}{'ratio':>8}{'step':>8}{'burn-in':>9}  verdict      seconds"
    )
    for width in widths:
        sizes = (width, width, width // 2, width, width)
        keys = jax.random.split(jax.random.key(width), 4)
        pairs = list(zip(keys, sizes[:-1], sizes[1:], strict=True))
        layers = [jax.random.orthogonal(key, max(pair))[: pair[1], : pair[0]] for key, *pair in pairs]
        truth = functools.reduce(lambda before, layer: layer @ before, layers)
        target = samplers.Target(lambda w, constants: jnp.zeros(()), log_likelihood, NUM_DATA)
        # The localiser keeps weights along flat directions small beside singular values of 1: sqrt(width / gamma) of them.
        how = LocalSampling(
            inverse_temperatures=(1.0, 1.5), localisation=10.0 * width, chains=2, draws=DRAWS, thin=THIN, burn_in=BURN_IN
        )
        began = time.perf_counter()
        found = learning_coefficient(jax.random.key(0), target, samplers.Batch(jnp.zeros(1), jnp.ones(1), truth), layers, how)
        spent = time.perf_counter() - began
        # Aoyagi 2024 with rank equal to the smallest width: half the dimension of the matrices of that rank.
        rank = sizes[2]
        exact = rank * (2 * width - rank) / 2
        value, bias = found.estimates["mean"].value, found.sampling.bias
        names, size = "-".join(map(str, sizes)), samplers.num_params(layers)
        assert bias is not None
        print(
            f"  {names:<22}{size:>9,}{exact:>10,.1f}{value:>10,.1f}{value / exact:>8.3f}"
            f"{bias.step / bias.exact:>+8.1%}{bias.burn_in / bias.exact:>+9.1%}  {found.findings[0].verdict:<12}{spent:>8.0f}"
        )
        for finding in found.findings[1:]:
            if finding.verdict not in ("pass", "not applicable"):
                print(f"    {finding.verdict}: {finding.note}")


if __name__ == "__main__":
    main(tuple(int(word) for word in sys.argv[1:]) or WIDTHS)
