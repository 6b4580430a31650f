"""Functions of the user's own, named `path/to/file.py:function` or `package.module:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from bayesnn.errors import UsageError, did_you_mean


def is_import_path(name: str) -> bool:
    """Tell a name such as `file.py:function` from a registered one."""
    return ":" in name


def load_function(source: str) -> Callable[..., Any]:
    """Import a function.

    Args:
        source: `path/to/file.py:function` or `package.module:function`.

    Raises:
        UsageError: No such file, module or function, or the file cannot be imported; says where it fails.
    """
    module_name, _, function_name = source.partition(":")
    module = _load_file(Path(module_name)) if module_name.endswith(".py") else _load_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(f"{module_name} has no function {function_name!r}{did_you_mean(function_name, known)}")
    return function


def source_of(source: str) -> tuple[str, str]:
    """Return the text of the file in which a function is defined, and its sha256."""
    module_name = source.partition(":")[0]
    if module_name.endswith(".py"):
        path = Path(module_name)
    else:
        found = importlib.util.find_spec(module_name)
        path = Path(found.origin if found is not None and found.origin else module_name)
    try:
        text = path.read_text()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    return text, hashlib.sha256(text.encode()).hexdigest()


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"no file {path}; an experiment of your own is path/to/file.py:function")
    name = f"bayesnn_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{path} cannot be imported: {_where(error, path)}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"no module {error.name!r}; a file is named by its path, such as ./{name}.py:function") from None


def _where(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{f'line {lines[-1]}: ' if lines else ''}{type(error).__name__}: {error}"
