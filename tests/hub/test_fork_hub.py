"""Fork before any query: the child has a separate pool, and none of the parent's work continues in it."""

from __future__ import annotations

import pytest

from tests.conftest import run_python
from tests.support.processes import children_end

pytestmark = pytest.mark.once("patched")  # each test runs in a separate process

FORKS = {
    "os.fork": ("", "os"),
    "gevent.os.fork": ("", "gevent.os"),
    "patched os.fork": ("from gevent.monkey import patch_all; patch_all()", "os"),
}

# The child calls a function. Its output precedes the parent's later output, because the parent waits for it.
PROGRAM = """
{patch}
import os, sys, traceback
import gevent, gevent.os
from greendata import ResultLost
from greendata.pool.pool import stats, submit
from tests.support.gates import Gate
from tests.support.natives import until

def in_child(check):
    sys.stdout.flush()
    # gevent watches SIGCHLD only from its first fork on, and misses a child that has ended before that
    gevent.get_hub().loop.install_sigchld()
    pid = {module}.fork()
    if not pid:
        try:
            check()
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(0)
    {module}.waitpid(pid, 0)

{code}
"""


def run_forking(how: str, code: str) -> str:
    patch, module = FORKS[how]
    lines = "\n".join(line[4:] for line in code.splitlines())
    finished = run_python(PROGRAM.format(patch=patch, module=module, code=lines), warnings="default")
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


every_fork = pytest.mark.parametrize("how", FORKS)


@every_fork
def test_a_child_has_a_new_pool(how: str) -> None:
    output = run_forking(
        how,
        """
    print("parent", submit(os.getpid).get() == os.getpid())

    def check():
        print("child", stats().workers, submit(os.getpid).get() == os.getpid(), stats().workers)
        print("many", sorted(result.get() for result in [submit(int, n) for n in range(5)]))

    in_child(check)
    print("parent", submit(os.getpid).get() == os.getpid())
    """,
    )
    assert output.splitlines() == ["parent True", "child 0 True 1", "many [0, 1, 2, 3, 4]", "parent True"]


@every_fork
def test_what_the_parent_had_pending_is_lost_in_the_child_and_kept_in_the_parent(how: str) -> None:
    output = run_forking(
        how,
        """
    gate = Gate()
    results = [submit(gate, n, label=f"job {n}") for n in range(6)]
    gate.wait_arrived(4)

    def check():
        for result in results:
            try:
                result.get(timeout=30)
            except ResultLost as error:
                print(error)
        print(results[0].cancel(), stats().queued, stats().running, gevent.get_hub().join(timeout=30))

    in_child(check)
    gate.open()
    print([result.get() for result in results])
    """,
    )
    *lost, state, kept = output.splitlines()
    assert [line.partition(" was submitted before the fork")[0] for line in lost] == [f"job {n}" for n in range(6)]
    assert state == "False 0 0 True"
    assert kept == "[0, 1, 2, 3, 4, 5]"


@every_fork
def test_greenlets_that_waited_in_the_parent_do_not_continue_in_the_child(how: str) -> None:
    output = run_forking(
        how,
        """
    gate = Gate()
    result = submit(gate, 42)

    def answer():
        try:
            value = result.get()
        finally:
            print("answered by the", "parent" if os.getpid() == parent else "child", flush=True)

    parent = os.getpid()
    waiting = [gevent.spawn(answer) for _ in range(3)]
    gate.wait_arrived()
    gevent.idle()

    def check():
        print(submit(int, "3").get())
        gevent.idle()
        print(submit(int, "4").get())

    in_child(check)
    gate.open()
    gevent.joinall(waiting)
    """,
    )
    assert output.splitlines() == ["3", "4", *["answered by the parent"] * 3]


@every_fork
def test_a_fork_while_a_greenlet_waits_for_a_result_of_another_hub(how: str) -> None:
    """The numbers that the parent expected do not count in the child: no LoopExit, and no loop that never ends."""
    output = run_forking(
        how,
        """
    from tests.support.natives import Native

    gate = Gate()
    results = []
    Native(lambda: results.append(submit(gate, 1)) or gate.wait_arrived()).join()
    waiting = gevent.spawn(results[0].get)
    gevent.idle()

    def check():
        waiting.kill()
        print([submit(int, n).get() for n in range(3)], gevent.get_hub().join(timeout=30))

    in_child(check)
    gate.open()
    print(waiting.get())
    """,
    )
    assert output.splitlines() == ["[0, 1, 2] True", "1"]


@every_fork
def test_a_child_of_a_child(how: str) -> None:
    output = run_forking(
        how,
        """
    def deeper():
        print("grandchild", submit(int, "2").get())

    def check():
        print("child", submit(int, "1").get())
        in_child(deeper)
        print("child", submit(int, "3").get())

    print("parent", submit(int, "0").get())
    in_child(check)
    """,
    )
    assert output.splitlines() == ["parent 0", "child 1", "grandchild 2", "child 3"]


@children_end
def test_a_child_that_ends_by_itself_ends_cleanly() -> None:
    finished = run_python(
        """
        import os, sys
        from greendata.pool.pool import submit
        from tests.support.gates import Gate

        gate = Gate()
        pending = submit(gate)
        gate.wait_arrived()
        pid = os.fork()
        if not pid:
            print("child", submit(int, "1").get())
            sys.exit(5)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        gate.open()
        """,
        warnings="default",
    )
    assert finished == (0, "child 1\n5\n", "")


IN_A_JOB = """
import os, gevent, greendata
from greendata.hub import native
from greendata.tasks.task import current_job
from tests.support.natives import until
{setup}

def ticks_during_a_job():
    ticks, over = [], native.allocate_lock()
    over.acquire()
    gevent.spawn(lambda: (ticks.append(1), over.release()))
    return greendata.run(lambda: (over.acquire(True, 30), list(ticks))[1]).get(timeout=60)

def child():
    print(current_job(), ticks_during_a_job(), greendata.run(lambda: current_job().label, label="own").get(timeout=30))
    print(os.getpriority(os.PRIO_PROCESS, 0) - base, flush=True)

def forking():
    pid = os.fork()
    if not pid:
        {ending}
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

base = os.getpriority(os.PRIO_PROCESS, 0)
gevent.get_hub()
print(greendata.run(forking).get(timeout=60) if {place!r} == "a job" else call(forking).get(timeout=60))
"""


@pytest.mark.parametrize("place", ["a job", "a call"])
@pytest.mark.parametrize("ending", ["child(); os._exit(3)", "child(); return None"])
def test_a_child_that_a_job_forks_is_a_process_of_its_own(place: str, ending: str) -> None:
    """Its hub runs during jobs, it has none of the parent's jobs, and it ends when the job returns in it."""
    if (place, ending) == ("a call", "child(); return None"):
        return  # after a greenlet that returns, its hub continues, as in any process
    setup = "caller = greendata.Caller.new()\ncall = caller.call_soon"
    code = IN_A_JOB.format(setup=setup if place == "a call" else "", ending=ending, place=place)
    finished = run_python(code, warnings="ignore", timeout=50)
    assert finished == (0, f"None [1] own\n0\n{3 if '_exit' in ending else 0}\n", "")
