"""A measurement in a process of its own: what one contender leaves behind disturbs no other."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ("apart", "run_apart", "tell")

PATIENCE = 120.0  # seconds for a measurement; a contender that hangs is told by name


def apart(module: str, *words: str, patience: float = PATIENCE) -> Any:
    """What *module*, run as a program with *words*, has told."""
    return run_apart([sys.executable, "-m", module, *words], patience=patience)


def run_apart(command: list[str], *, patience: float = PATIENCE) -> Any:
    """What the program *command* has told in its last line."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=patience)
    return json.loads(done.stdout.splitlines()[-1])


def tell(figures: Any) -> None:
    """Tell *figures* to the process that measures."""
    print(json.dumps(figures))
