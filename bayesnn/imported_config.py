"""Parts of a run that the user has written, named by where they are defined."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import field_validator
from tyro.conf import Suppress

from bayesnn.sampler_config import Frozen


def absolute_source(source: str) -> str:
    """Return file.py:function with the file's whole path, so that a run resumes from any folder; other names as they are."""
    file, colon, function = source.partition(":")
    return f"{Path(file).expanduser().resolve()}{colon}{function}" if file.endswith(".py") else source


class Imported(Frozen):
    """Something of the user's own, named by where it is defined."""

    kind: Annotated[Literal["imported"], Suppress] = "imported"
    source: str
    """`path/to/file.py:function` or `package.module:function`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the function, plain data."""

    @field_validator("source")
    @classmethod
    def _absolute(cls, source: str) -> str:
        if not source.rpartition(":")[0]:
            raise ValueError("it must say file and function, as path/to/file.py:function")
        return absolute_source(source)

    @field_validator("arguments")
    @classmethod
    def _plain(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return json.loads(json.dumps(arguments, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"arguments must be numbers, strings, lists and dicts, for config.json: {error}") from None

    @classmethod
    def of(cls, function: Any, **arguments: Any) -> Imported:
        """Name a function or class by its file.

        Raises:
            ValueError: It is not at the top level of a file, where a resumed run could import it again.
        """
        file, name = Path(inspect.getfile(function)).resolve(), function.__qualname__
        if not file.is_file() or not name.isidentifier():
            raise ValueError(f"{name} of {file} must be defined at the top level of a file, so that a resumed run can import it")
        return cls(source=f"{file}:{name}", arguments=arguments)
