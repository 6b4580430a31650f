"""What a comparison needs and may be missing: a peer in an environment of its own, data in a directory of the user's."""

from __future__ import annotations

from pathlib import Path

from benchmarks.timing import ROOT


def interpreter(environment: str) -> Path | None:
    """Return the interpreter of an environment, or say that there is none."""
    python = ROOT / environment / "bin" / "python"
    if python.exists():
        return python
    print(f"\nskipped: no environment {environment}; requirements/README.md tells how to make it")
    return None


def has_data(name: str) -> bool:
    """Return whether a data set can be read, or say why not."""
    from bayesnn import data

    try:
        data.load(name)
    except ValueError as error:
        print(f"\nskipped: {error}")
        return False
    return True
