"""Child processes of jobs and of functions in queries, where gevent has patched the functions that start and wait."""

from __future__ import annotations

import pytest

from tests.support.processes import children_end, run_python

ALL = (0, "all\n", "")

pytestmark = pytest.mark.once("unpatched")  # each test runs in a separate process


@pytest.mark.parametrize("has_hub", [False, True])
def test_a_job_starts_programs_and_gets_their_return_codes(has_hub: bool) -> None:  # noqa: FBT001
    code = f"""
        from gevent import monkey; monkey.patch_all()
        import os, subprocess
        import gevent, greendata, polars as pl

        greendata.patch_polars()

        def use():
            if {has_hub}:
                gevent.sleep(0)
            ended = subprocess.run(["sh", "-c", "cat; exit 3"], input="a", capture_output=True, text=True)
            assert (ended.returncode, ended.stdout) == (3, "a"), ended
            assert subprocess.check_output(["echo", "b"]) == b"b\\n"
            assert subprocess.call(["sh", "-c", "exit 4"]) == 4
            assert os.popen("echo c").read() == "c\\n"
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                process.stdin.write(b"d")
                process.stdin.close()
                assert process.stdout.read() == b"d"
            with subprocess.Popen(["sh", "-c", "exit 5"]) as process:
                while process.poll() is None:
                    pass
            assert process.returncode == 5
            try:
                subprocess.run(["sleep", "60"], timeout=0.01)
            except subprocess.TimeoutExpired:
                pass
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 6"], {{}})
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
            try:
                subprocess.run(["/no/such/program"])
            except FileNotFoundError:
                return 7

        assert [gevent.spawn(use).get() for _ in range(2)] == [7, 7]
        assert [result.get() for result in [greendata.run(use) for _ in range(4)]] == [7] * 4
        assert pl.Series([1]).map_elements(lambda _: use(), return_dtype=pl.Int64).to_list() == [7]
        print("all")
    """
    assert run_python(code, warnings="ignore") == ALL


def test_a_return_code_is_right_though_the_main_hub_has_reaped_the_child() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import os, subprocess
        import gevent, greendata
        from tests.support.gates import Gate

        greendata.run(int).get()
        subprocess.run(["true"])  # from here on the main hub reaps every child
        gate, pids = Gate(), []

        def start(how):
            process = subprocess.Popen(["sh", "-c", "exit 5"])
            pids.append(process.pid)
            gate()
            return process.poll() if how == "poll" else process.wait()

        results = [greendata.run(start, how) for how in ("poll", "wait")]
        gate.wait_arrived(2)
        for pid in pids:
            while os.path.exists(f"/proc/{pid}"):
                gevent.sleep(0.001)
        gate.open()
        assert [result.get() for result in results] == [5, 5]
        print("all")
    """
    assert run_python(code) == ALL


@children_end
def test_a_job_forks_and_waits_for_its_child() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import multiprocessing, os
        import gevent, greendata

        def fork(code):
            pid = os.fork()
            if not pid:
                os._exit(code)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        def process(code):
            child = multiprocessing.get_context("fork").Process(target=os._exit, args=(code,))
            child.start()
            child.join()
            return child.exitcode

        gevent.get_hub().loop.install_sigchld()  # otherwise gevent misses a child that ends before it watches
        waits = [greendata.run(func, code) for func in (fork, process) for code in range(4)]
        waits += [gevent.spawn(fork, code) for code in range(4)]
        assert [wait.get() for wait in waits] == [0, 1, 2, 3] * 3
        print("all")
    """
    assert run_python(code) == ALL


def test_a_greenlet_forks_while_another_thread_has_the_lock_of_the_executors() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        from concurrent.futures import ThreadPoolExecutor, thread  # registers fork hooks before the lock is shared
        import os
        import gevent, greendata
        from tests.support.gates import Gate

        greendata.run(int).get()
        gate = Gate()

        def hold():
            with thread._global_shutdown_lock:
                gate()

        def fork():
            pid = os.fork()
            if not pid:
                with thread._global_shutdown_lock:
                    os._exit(3)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        gevent.get_hub().loop.install_sigchld()  # otherwise gevent misses a child that ends before it watches
        holder = greendata.run(hold)
        gate.wait_arrived()
        forks = [gevent.spawn(fork), greendata.run(fork)]
        gevent.sleep(0)
        assert not forks[0].ready()
        gate.open()
        assert [child.get() for child in forks] == [3, 3]
        print("all")
    """
    assert run_python(code) == ALL


def test_a_job_that_has_slept_closes_a_pipe_at_once() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import os
        import gevent, greendata

        def use():
            gevent.sleep(0)  # the worker has a hub from now on
            reads, writes = os.pipe()
            os.close(writes)
            assert os.read(reads, 1) == b""
            os.close(reads)

        greendata.run(use).get(timeout=30)
        print("all")
    """
    assert run_python(code) == ALL


@children_end
def test_a_child_that_a_job_forks_starts_programs_and_forks() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import os, subprocess
        import gevent, greendata

        def fork():
            pid = os.fork()
            if not pid:
                ended = subprocess.run(["sh", "-c", "echo a; exit 3"], capture_output=True)
                assert ended.stdout == b"a\\n"
                grandchild = os.fork()
                if not grandchild:
                    os._exit(5)
                status = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
                os._exit(10 * ended.returncode + status)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        assert greendata.run(fork).get() == 35
        subprocess.run(["true"])
        assert greendata.run(fork).get() == 35
        print("all")
    """
    assert run_python(code) == ALL


def test_children_of_jobs_are_waited_for_in_greenlets_and_the_other_way_round() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import os, subprocess
        import gevent, greendata

        def start():  # the child ends when its standard input does
            command = ["sh", "-c", "read a; echo b; exit 4"]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def wait(process):
            return process.wait()

        def communicate(process):
            assert process.communicate() == (b"b\\n", None)
            return process.returncode

        def fork():
            pid = os.fork()
            if not pid:
                os._exit(6)
            return pid

        def in_job(func, *args):
            return greendata.run(func, *args).get()

        def in_greenlet(func, *args):
            return gevent.spawn(func, *args).get()

        for begin, end in (in_job, in_greenlet), (in_greenlet, in_job), (in_job, in_job), (in_greenlet, in_greenlet):
            for how in wait, communicate:
                process = begin(start)
                if how is wait:  # only a hub that keeps running ends the child
                    gevent.spawn_later(0.01, os.write, process.stdin.fileno(), b"go\\n")
                assert end(how, process) == 4
                process.stdin.close()
                process.stdout.close()
                assert process.poll() == 4
            assert os.waitstatus_to_exitcode(end(os.waitpid, begin(fork), 0)[1]) == 6
        print("all")
    """
    assert run_python(code) == ALL


def test_a_job_runs_commands_of_the_shell_while_the_main_hub_reaps_children() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import os, subprocess
        import gevent, greendata

        greendata.run(int).get()
        subprocess.run(["true"])
        for command in "exit 3", b"exit 3":
            assert {greendata.run(os.system, command).get() for _ in range(20)} == {3 << 8}
            assert os.system(command) == 3 << 8
        print("all")
    """
    assert run_python(code) == ALL


@pytest.mark.parametrize("place", ["greendata.run(use).get()", "gevent.spawn(use).get()", "caller(use).get()"])
def test_a_class_derived_from_popen_is_one_everywhere(place: str) -> None:
    code = f"""
        from gevent import monkey; monkey.patch_all()
        import subprocess
        import gevent, greendata

        class Program(subprocess.Popen):
            def __init__(self, code):
                super().__init__(["sh", "-c", f"exit {{code}}"])

            def wait(self, timeout=None):
                return 10 * super().wait(timeout)

        greendata.run(int).get()
        caller = greendata.Caller.new().call_soon

        def use():
            with Program(3) as program:
                assert isinstance(program, Program)
                assert isinstance(program, subprocess.Popen)
            return program.wait()

        assert {place} == 30
        print("all")
    """
    assert run_python(code) == ALL
