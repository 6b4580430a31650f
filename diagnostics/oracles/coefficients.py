r"""Learning coefficients and multiplicities, and the rules by which they compose.

The integral of exp(-n K) over a prior falls as :math:`n^{-\lambda} (\log n)^{m - 1}`. That alone fixes what sums and products of
potentials over separate parameters do, and both are invariant under a change of parameters that is smooth both ways and under
multiplication of K by a function that is positive throughout.

References:
    Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, theorem 6.6 and section 7.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class ExactCoefficient(NamedTuple):
    """Exact learning coefficient and multiplicity.

    Attributes:
        llc: Lambda, a rational number.
        multiplicity: m, at least 1.
    """

    llc: Fraction
    multiplicity: int


def monomial_coefficient(orders: Sequence[int], prior_orders: Sequence[int] | None = None) -> ExactCoefficient:
    r"""Return the coefficient of :math:`K = \prod_i w_i^{2 k_i}` with a prior proportional to :math:`\prod_i |w_i|^{h_i}`.

    .. math:: \lambda = \min_i \frac{h_i + 1}{2 k_i}, \qquad m = \text{how many } i \text{ attain it}

    Args:
        orders: k, integers >= 0, not all 0.
        prior_orders: h, integers >= 0; by default 0.

    Raises:
        ValueError: Orders that are out of range, or as many as do not match.

    Example:
        >>> monomial_coefficient([1, 2, 2])
        ExactCoefficient(llc=Fraction(1, 4), multiplicity=2)
    """
    powers = [0] * len(orders) if prior_orders is None else list(prior_orders)
    if len(powers) != len(orders) or any(order < 0 or order != int(order) for order in [*orders, *powers]) or not any(orders):
        raise ValueError(f"orders must be integers >= 0, not all 0, with one prior order each; got {orders} and {prior_orders}")
    rates = [Fraction(int(h) + 1, 2 * int(k)) for k, h in zip(orders, powers, strict=True) if k]
    return ExactCoefficient(min(rates), rates.count(min(rates)))


def coefficient_of_sum(*parts: ExactCoefficient) -> ExactCoefficient:
    """Return the coefficient of K1(u) + K2(v) + ..., of separate parameters: lambdas add, and so do multiplicities minus one.

    Example:
        >>> coefficient_of_sum(monomial_coefficient([1, 1]), monomial_coefficient([2]))
        ExactCoefficient(llc=Fraction(3, 4), multiplicity=2)
    """
    return ExactCoefficient(sum((part.llc for part in parts), Fraction(0)), 1 + sum(part.multiplicity - 1 for part in parts))


def coefficient_of_product(*parts: ExactCoefficient) -> ExactCoefficient:
    """Return the coefficient of K1(u) K2(v) ..., of separate parameters: the smallest lambda; multiplicities of ties add.

    Example:
        >>> coefficient_of_product(monomial_coefficient([1]), monomial_coefficient([1]), monomial_coefficient([0, 1], [0, 4]))
        ExactCoefficient(llc=Fraction(1, 2), multiplicity=2)
    """
    smallest = min(part.llc for part in parts)
    return ExactCoefficient(smallest, sum(part.multiplicity for part in parts if part.llc == smallest))
