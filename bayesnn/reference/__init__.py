"""Posterior references: saved from a run, published by others, and compared with."""

from bayesnn.reference.bundle import Bundle, bundle_of, differences, load_bundle, posterior_facts
from bayesnn.reference.comparison import hold_against, open_reference
from bayesnn.reference.published import PUBLISHED, published

__all__ = [
    "PUBLISHED",
    "Bundle",
    "bundle_of",
    "differences",
    "hold_against",
    "load_bundle",
    "open_reference",
    "posterior_facts",
    "published",
]
