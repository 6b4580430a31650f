"""What a finished run sampled, built again so that it can be sampled further."""

from __future__ import annotations

from bayesnn.build import build_problem
from bayesnn.errors import UsageError
from bayesnn.load import LoadedRun
from bayesnn.problem import Problem


def problem_of(run: LoadedRun) -> Problem:
    """Build what a run sampled, in its precision.

    Raises:
        UsageError: Its data or its model are not what they were.
    """
    problem, recorded = build_problem(run.config), run.folder.manifest["problem"]
    if problem.description != recorded:
        raise UsageError(f"the data or the model changed since this run began: {recorded} is now {problem.description}")
    return problem
