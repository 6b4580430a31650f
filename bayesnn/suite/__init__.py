"""Audit suites: a paper's claims as hypotheses, the runs that test them, and one report."""
