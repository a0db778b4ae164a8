"""What gevent has patched, on threads that have no hub: they wait natively, greenlets in their hub, for each other."""

from __future__ import annotations

import pytest

from tests.crowd import SCENES
from tests.processes import run_python

ALL = (0, "all\n", "")


@pytest.mark.parametrize("scene", SCENES)
def test_a_crowd_of_jobs_greenlets_and_threads_comes_to_its_end(scene: str) -> None:
    assert run_python(["-m", "tests.crowd", scene, ""]) == ALL


@pytest.mark.parametrize("scene", ["Lock", "Condition", "SimpleQueue", "executors", "timeouts and kills"])
def test_so_it_does_where_workers_have_hubs(scene: str) -> None:
    assert run_python(["-m", "tests.crowd", scene, "hubs"]) == ALL
