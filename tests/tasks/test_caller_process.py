"""`Caller` and the process: its threads do not keep the process alive, and a forked child has separate callers."""

from __future__ import annotations

import pytest

from tests.conftest import PATCHED
from tests.support.processes import run_python

pytestmark = pytest.mark.once("patched")  # each test starts a process

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
def test_callers_never_keep_the_process_alive(end: str, code: int) -> None:
    patch = "from gevent import monkey; monkey.patch_all()" if PATCHED else ""
    finished = run_python(EXIT.format(patch=patch, end=end))
    assert (finished.returncode, finished.stdout, finished.stderr) == (code, "0\n", "")


def test_a_forked_child_has_its_own_callers() -> None:
    finished = run_python(
        """
        import os, gevent
        from greendata.tasks.caller import Caller
        current, side = Caller.current(), Caller.new()
        pending = side.call_soon(gevent.sleep, 3600)
        service = side.service(lambda service: service.stopping.wait())
        side.__enter__()
        pid = os.fork()
        if pid == 0:
            side.__exit__(None, None, None)
            print(type(service.started.exception).__name__)
            print(current.is_stopped, side.is_stopped, type(pending.exception).__name__, Caller.all())
            print(Caller.current() is current, Caller.current().call_soon(int).get())
            os.sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        print(side.call_soon(int, "7").get())
    """,
        warnings="ignore",
    )
    assert finished.stdout.splitlines() == ["ResultLost", "True True ResultLost ()", "False 0", "7"]
    assert (finished.returncode, finished.stderr) == (0, "")
