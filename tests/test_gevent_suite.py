"""gevent's own tests of AsyncResult pass with `Result` in its place."""

from __future__ import annotations

import re

import pytest

from tests.conftest import run_python

# Every test case of the module that makes an AsyncResult, or inherits from one that does.
CASES = (
    "TestAsyncResult",
    "TestAsyncResultAsLinkTarget",
    "TestAsyncResultCrossThread",
    "TestAsyncResultGet",
    "TestAsyncResultWait",
    "TestWait",
    "TestWaitAsyncResult",
    "TestWait_count1",
    "TestWait_count2",
    "TestWait_notimeout",
)

PROGRAM = """
import sys, unittest
{patch}
import gevent.tests.test__event as module
from greendata.hub.result import Result

made = 0

class Counted(Result):
    def __init__(self, *args):
        global made
        made += 1
        super().__init__(*args)

module.AsyncResult = Counted
suite = unittest.defaultTestLoader.loadTestsFromName({case!r}, module)
outcome = unittest.TextTestRunner(stream=sys.stdout).run(suite)
print("made", made)
sys.exit(not outcome.wasSuccessful())
"""


@pytest.mark.parametrize("patch", ["", "from gevent.monkey import patch_all; patch_all()"], ids=["plain", "patched"])
@pytest.mark.parametrize("case", CASES)
def test_case_passes_with_result_in_the_place_of_async_result(case: str, patch: str) -> None:
    finished = run_python(PROGRAM.format(case=case, patch=patch), warnings="default")
    assert finished.returncode == 0, finished
    ran = re.search(r"Ran (\d+) tests? in", finished.stdout)
    made = re.search(r"^made (\d+)$", finished.stdout, re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) > 0
    assert made is not None
    assert int(made[1]) > 0, "the suite did not use Result"
    assert "skipped" not in finished.stdout


def test_the_list_of_cases_is_complete() -> None:
    finished = run_python(
        """
        import unittest
        import gevent.tests.test__event as module

        found = [case for case in vars(module).values() if isinstance(case, type) and issubclass(case, unittest.TestCase)]
        print(*(case.__name__ for case in found if case.__module__ == module.__name__))
        """,
        warnings="default",
    )
    others = {name for name in finished.stdout.split() if name.startswith(("TestEvent", "TestGeventWaitOnEvent"))}
    assert set(finished.stdout.split()) - others == set(CASES)
