"""report.html: one page that opens offline and says whether the draws of a run can be trusted, and for what."""

from bayesnn.report.page import render, write_report

__all__ = ["render", "write_report"]
