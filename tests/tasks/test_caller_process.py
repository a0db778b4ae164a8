"""`Caller` and the process: its threads never keep it, and a forked child has callers of its own."""

from __future__ import annotations

import pytest

from tests.conftest import PATCHED
from tests.support.processes import run_python

pytestmark = pytest.mark.once("patched")  # each test has a process of its own

EXIT = """
    {patch}
    import gevent, time
    from greendata.tasks.caller import Caller
    side = Caller.new()
    child = side.child("child")
    child.call_soon(gevent.sleep, 3600)
    side.call_soon(lambda: gevent.sleep(3600))
    side.call_later(3600, print, "never")
    Caller.current().call_later(3600, print, "never")
    print(side.call_soon(int).get())
    {end}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("raise SystemExit(3)", 3)])
def test_callers_never_keep_the_process(end: str, code: int) -> None:
    patch = "from gevent import monkey; monkey.patch_all()" if PATCHED else ""
    finished = run_python(EXIT.format(patch=patch, end=end))
    assert (finished.returncode, finished.stdout, finished.stderr) == (code, "0\n", "")


def test_a_forked_child_has_its_own_callers() -> None:
    finished = run_python(
        """
        import os, gevent
        from greendata.tasks.caller import Caller
        home, side = Caller.current(), Caller.new()
        pending = side.call_soon(gevent.sleep, 3600)
        service = side.service(lambda service: service.stopping.wait())
        side.__enter__()
        pid = os.fork()
        if pid == 0:
            side.__exit__(None, None, None)
            print(type(service.started.exception).__name__)
            print(home.is_stopped, side.is_stopped, type(pending.exception).__name__, Caller.all())
            print(Caller.current() is home, Caller.current().call_soon(int).get())
            os.sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        print(side.call_soon(int, "7").get())
    """,
        warnings="ignore",
    )
    assert finished.stdout.splitlines() == ["ResultLost", "True True ResultLost ()", "False 0", "7"]
    assert (finished.returncode, finished.stderr) == (0, "")
