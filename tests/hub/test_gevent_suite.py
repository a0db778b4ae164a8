"""gevent's own tests of AsyncResult pass when `Result` replaces it."""

from __future__ import annotations

import pytest

from tests.conftest import run_python

# Every test case of the module that creates an AsyncResult, or inherits from one that does.
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
# It starts native threads through `threading`. With patching it fails with gevent's own AsyncResult too.
UNPATCHED_ONLY = {"TestAsyncResultCrossThread"}
# It watches `run_callback_threadsafe`, which notifies gevent's own links. Those of a Result use a `HubWaker`.
INNER = "test_cross_thread_callback_can_run_before_scheduling_returns"

# gevent's tests allow some tenths of a second for a wakeup, which a busy machine may exceed. Here a wait may last
# longer than its timeout, but not less, and nothing else depends on the time that a wakeup takes.
PROGRAM = """
import sys, unittest
{patch}
import gevent.tests.test__event as module
from gevent.testing.testcase import TimeAssertMixin
from greendata.hub.result import Result

class Counted(Result):
    made = 0

    def __init__(self, *args):
        Counted.made += 1
        super().__init__(*args)

def assert_not_less(self, seconds, least, most):
    self.assertGreaterEqual(seconds, least)

TimeAssertMixin.assertTimeWithinRange = assert_not_less
module.TestWait.timeout = 60
module.AsyncResult = Counted
module.TestAsyncResultCrossThread.{inner} = None  # removes the test
delay = module.DELAY
for name in {cases!r}:
    Counted.made = 0
    module.DELAY = 4 if "CrossThread" in name else delay  # seconds; there it limits how long a thread may take
    suite = unittest.defaultTestLoader.loadTestsFromName(name, module)
    outcome = unittest.TextTestRunner(stream=sys.stderr).run(suite)
    print(name, outcome.testsRun > 0, Counted.made > 0, outcome.wasSuccessful() and not outcome.skipped)
"""


@pytest.mark.parametrize("patch", ["", "from gevent.monkey import patch_all; patch_all()"], ids=["plain", "patched"])
def test_gevents_tests_pass_with_result_in_the_place_of_async_result(patch: str) -> None:
    cases = [case for case in CASES if not (patch and case in UNPATCHED_ONLY)]
    finished = run_python(PROGRAM.format(cases=cases, patch=patch, inner=INNER), warnings="default")
    found = dict(line.split(maxsplit=1) for line in finished.stdout.splitlines())
    # The case ran tests, they created instances of Result, and none failed or was skipped.
    assert found == dict.fromkeys(cases, "True True True"), finished.stderr


def test_the_list_of_cases_is_complete() -> None:
    finished = run_python(
        """
        import unittest
        import gevent.tests.test__event as module

        classes = [found for found in vars(module).values() if isinstance(found, type)]
        found = [case for case in classes if issubclass(case, unittest.TestCase)]
        print(*(case.__name__ for case in found if case.__module__ == module.__name__))
        """,
        warnings="default",
    )
    named = {name for name in finished.stdout.split() if not name.startswith(("TestEvent", "TestGeventWaitOnEvent"))}
    assert named == set(CASES)
