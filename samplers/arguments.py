"""Checks of arguments that many samplers share."""


def require_positive(**arguments: float) -> None:
    """Raise ValueError, naming the argument, for a number that is not positive and finite."""
    for name, value in arguments.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def require_share(**arguments: float) -> None:
    """Raise ValueError, naming the argument, for a number outside (0, 1]."""
    for name, value in arguments.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {value}")
