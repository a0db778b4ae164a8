"""A measurement in a process of its own: what one contender leaves behind disturbs no other."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ("apart", "tell")

PATIENCE = 120.0  # seconds for a measurement; a contender that hangs is told by name


def apart(module: str, *words: str) -> Any:
    """What *module*, run as a program with *words*, has told."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    return json.loads(done.stdout)


def tell(figures: Any) -> None:
    """Tell *figures* to the process that measures."""
    print(json.dumps(figures))
