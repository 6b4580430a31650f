"""Functions of the user's own, named `path/to/file.py:function` or `package.module:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from pydantic import ValidationError

from bayesnn.config import explain
from bayesnn.errors import UsageError, did_you_mean

# Where code lives that the user has not written: Python, what is installed, and this project.
NOT_OWN = (
    *(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib")),
    *(f"{Path(__file__).parents[1] / name}/" for name in ("bayesnn", "samplers", "diagnostics")),
    "<",
)


def is_import_path(name: str) -> bool:
    """Tell a name such as `file.py:function` from a registered one."""
    return ":" in name


def call(source: str, arguments: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Import a function of the user's own and call it.

    Raises:
        UsageError: As `load_function`, or arguments that it does not take. What it raises itself goes on, see `own_error`.
    """
    function = load_function(source)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise UsageError(f"{source} cannot be called with {dict(arguments) or 'no arguments'}: {error}") from None
    return function(**arguments)


def load_function(source: str) -> Callable[..., Any]:
    """Import a function.

    Args:
        source: `path/to/file.py:function` or `package.module:function`.

    Raises:
        UsageError: No such file, module or function, or the file cannot be imported; says where it fails.
    """
    module_name, _, function_name = source.rpartition(":")
    module = _load_file(Path(module_name)) if module_name.endswith(".py") else _load_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
        raise UsageError(f"{module_name} has no function {function_name!r}{did_you_mean(function_name, known)}")
    return function


def source_of(source: str) -> tuple[str, str]:
    """Return the text of the file in which a function is defined, and its sha256."""
    module_name = source.rpartition(":")[0]
    path = Path(module_name)
    if not module_name.endswith(".py"):
        path = Path(str(_load_module(module_name).__file__))
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    return text, hashlib.sha256(text.encode()).hexdigest()


def own_error(error: BaseException) -> str | None:
    """Return what an error says and where, if the user's own code raised it or was on the way to it; None otherwise."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(NOT_OWN)]
    if not frames:
        return None
    message = explain(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {message}"


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"no file {path}; something of your own is path/to/file.py:function")
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
    except SyntaxError as error:
        del sys.modules[name]
        raise UsageError(f"{error.filename}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}") from None
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"no module {error.name!r}; a file is named by its path, such as ./{name}.py:function") from None
