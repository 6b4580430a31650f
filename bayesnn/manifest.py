"""What ran, on what, with which versions: facts of an execution, recorded beside the configuration."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

PACKAGES = (
    "jax",
    "jaxlib",
    "blackjax",
    "flax",
    "optax",
    "numpyro",
    "numpy",
    "scipy",
    "tensorstore",
    "orbax-checkpoint",
    "bayesnn",
)
SOURCES = ("samplers", "diagnostics", "bayesnn")


class Launch(TypedDict):
    """One execution: `run` makes the first, every `resume` adds one."""

    time: str
    command: list[str]
    versions: dict[str, str]
    code: dict[str, str]
    platform: str
    cores: int
    devices: list[str]
    processes: int
    # XLA splits CPU matrix products by the size of its thread pool, and so the last bits of a draw depend on it.
    cpu_threads: int
    # From the launch before, in words.
    differences: list[str]


class Manifest(TypedDict):
    """What a run folder records beside its configuration."""

    experiment: str
    # sha256 of the user's own files, by import path.
    sources: dict[str, str]
    # What is sampled: `Problem.description`.
    problem: dict[str, Any]
    launches: list[Launch]
    config_sha256: str
    config: dict[str, Any]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def code_hash() -> str:
    """Return a hash of this project's own source, whether or not it is in a git checkout."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for package in SOURCES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def code() -> dict[str, str]:
    """Return the hash of this project's source and, in a checkout, its commit."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "not in a git checkout"
    return {"sha256": code_hash(), "commit": commit}


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has no affinities


def launch() -> Launch:
    """Describe this execution."""
    import jax

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "code": code(),
        "platform": platform.platform(),
        "cores": num_cores(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "cpu_threads": max(int(os.environ.get("PJRT_NPROC", 0)) or num_cores(), len(jax.local_devices())),
        "differences": [],
    }


def differences(before: Launch, now: Launch) -> list[str]:
    """Return, in words, in which versions, code, kinds of device or threads of a CPU two launches differ."""
    changed = [
        f"{name} {before['versions'].get(name)} -> {now['versions'].get(name)}"
        for name in sorted(before["versions"].keys() | now["versions"].keys())
        if before["versions"].get(name) != now["versions"].get(name)
    ]
    if before["code"].get("sha256") != now["code"]["sha256"]:
        changed.append(f"the code of this project {before['code'].get('commit')} -> {now['code']['commit']}")
    if set(before["devices"]) != set(now["devices"]):
        changed.append(f"devices {', '.join(sorted(set(before['devices'])))} -> {', '.join(sorted(set(now['devices'])))}")
    if before["cpu_threads"] != now["cpu_threads"]:
        changed.append(f"CPU threads {before['cpu_threads']} -> {now['cpu_threads']}, and with them last bits of draws")
    return changed
