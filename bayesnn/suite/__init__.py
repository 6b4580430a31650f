"""Audit suites: a paper's claims as hypotheses, the runs that test them, and one report. Importing this imports no JAX."""

SUITES = {"izmailov2021": "What Are Bayesian Neural Network Posteriors Really Like? (2021), and what its critics answer"}
