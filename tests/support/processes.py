"""Python programs in separate processes with a time limit, for tests of whole processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ("ROOT", "Finished", "children_end", "run_python")

ROOT = Path(__file__).resolve().parents[2]

# So does a program that has no more than `import polars`, `os.fork()` and `sys.exit()` in the child.
children_end = pytest.mark.skipif(
    version("polars").startswith("2.0."), reason="Polars 2.0 hangs forked children at exit"
)

# Since 3.12 Python warns at a fork in a process with native threads, which is what many of these programs are about.
FORK_WARNING = "ignore:This process:DeprecationWarning"


class Finished(NamedTuple):
    """How a program ended; a negative return code is the signal that killed it."""

    returncode: int
    stdout: str
    stderr: str


def run_python(
    code: str | Path | Sequence[str],
    *,
    env: Mapping[str, str | None] | None = None,
    timeout: float = 60.0,
    warnings: str = "error",
    python: str | Path = sys.executable,
) -> Finished:
    """Run *code* with an interpreter from the top of the repository, and return how it ended.

    Args:
        code: source text, the path of a script, or the interpreter's own arguments (``["-m", "examples.demo"]``).
        env: variables to set, or with None to unset. Nothing of ``GREENDATA_*`` is inherited.
        timeout: the guard, in seconds. A program that outlives it is a failure and shows where it stood.
        warnings: what Python does with a warning, as its ``-W`` option takes it.
        python: the interpreter; this one if not given.
    """
    arguments = [str(python), "-X", "faulthandler", "-W", warnings, "-W", FORK_WARNING, *_arguments(code)]
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=_environment(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as overdue:
        process.send_signal(signal.SIGABRT)  # faulthandler prints the stack of every thread
        stdout, stderr = process.communicate()
        raise AssertionError(f"still running after {timeout:g} seconds\n{stdout}\n{stderr}") from overdue
    finally:
        process.kill()
    return Finished(process.returncode, stdout, stderr)


def _arguments(code: str | Path | Sequence[str]) -> list[str]:
    if isinstance(code, Path):
        return [str(code)]
    return ["-c", textwrap.dedent(code)] if isinstance(code, str) else list(code)


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GREENDATA_")}
    merged = {**inherited, **changes}
    return {name: value for name, value in merged.items() if value is not None}
