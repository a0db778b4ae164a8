"""What is left when a server is killed, when its children are, and when these have started processes of their own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.monkey import get_original

import greendata
from greendata.engines import spill
from greendata.engines.process import ProcessEngine
from greendata.errors import WorkerDied
from tests.engines.test_process import is_gone, pid_in
from tests.support import child_tasks
from tests.support.processes import ROOT, run_python

GUARD = 60_000  # milliseconds

poll: Callable[[], Any] = get_original("select", "poll")


class Process:
    """Another process, which is watched by a descriptor: its number may be used again, this may not."""

    def __init__(self, pid: int) -> None:
        self.descriptor = os.pidfd_open(pid)

    def wait_for_end(self) -> None:
        waiting = poll()
        waiting.register(self.descriptor, select.POLLIN)
        assert waiting.poll(GUARD), "it has not ended"
        os.close(self.descriptor)


@pytest.fixture
def one() -> Iterator[ProcessEngine]:
    with ProcessEngine(workers=1) as engine:
        yield engine


SERVERS = {
    "a thread that has ended started them": """
        Native(lambda: engine.call(abs, -1)).join()
        pids = [child.pid for child in (*engine._children.idle, *engine._children.busy)]
    """,
    "one is in native code that holds the GIL": """
        Native(lambda: engine.call(child_tasks.hold_the_gil, folder + "/held"))
        pids = [pid_in(Path(folder, "held"))]
    """,
    "they have not begun": """
        os.environ["PYTHONPATH"] = folder
        Path(folder, "sitecustomize.py").write_text("import time; time.sleep(3600)")
        Native(lambda: engine.call(abs, -1))
        until(lambda: len(engine._children.idle) == 1)
        pids = [child.pid for child in (*engine._children.idle, *engine._children.busy)]
        assert len(pids) == 2
    """,
    "one has started a process": """
        Native(lambda: engine.call(child_tasks.start_and_hold, folder + "/held"))
        pids = [pid_in(Path(folder, "held"))]
    """,
    "it has forked a process, which lives on": """
        engine.call(abs, -1)
        pids = [child.pid for child in (*engine._children.idle, *engine._children.busy)]
        if not (forked := os.fork()):
            os.read(0, 1)
            os._exit(0)
    """,
}


@pytest.mark.parametrize("program", SERVERS.values(), ids=list(SERVERS))
def test_no_child_outlives_a_killed_server(program: str, tmp_path: Path) -> None:
    head = f"""
import os, signal, sys
from pathlib import Path
from greendata.engines.process import ProcessEngine
from tests.engines.test_process import pid_in
from tests.support import child_tasks
from tests.support.natives import Native, until

folder = {str(tmp_path)!r}
engine = ProcessEngine(workers=2)
"""
    tail = """
print(*pids, flush=True)
sys.stdin.read()
"""
    lines = [line[8:] for line in program.splitlines()]
    code = head + "\n".join(lines) + tail
    server = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}
    )
    with server:
        children = [Process(int(pid)) for pid in server.stdout.readline().split()]
        assert children
        server.kill()
        for child in children:
            child.wait_for_end()


def test_folders_of_killed_servers_are_removed_by_the_next_engine(tmp_path: Path) -> None:
    """A child writes into its folder as Polars does, which makes it when it needs it."""
    code = f"""
import os, sys
import greendata
from greendata.engines.process import ProcessEngine
from tests.support import child_tasks

engine = ProcessEngine(workers=1, environment={{"POLARS_OOC_SPILL_DIR": {str(tmp_path)!r}}})
print(engine.call(child_tasks.spill), flush=True)
sys.stdin.read()
"""
    servers = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=-1, stdout=-1) for _ in range(2)]
    killed, living = (Path(server.stdout.readline().decode().strip()) for server in servers)
    foreign = tmp_path / killed.name.replace("spill-", "spill-1")  # of another namespace: nobody can tell
    foreign.mkdir()
    servers[0].kill()
    servers[0].wait()
    assert {killed, living, foreign} <= set(tmp_path.iterdir())
    with ProcessEngine(workers=1, environment={"POLARS_OOC_SPILL_DIR": str(tmp_path)}) as engine:
        mine = Path(engine.call(child_tasks.spill))
        assert set(tmp_path.iterdir()) == {living, foreign, mine}
        with pytest.raises(WorkerDied):
            engine.call(child_tasks.exit_with, 3)
        assert set(tmp_path.iterdir()) == {living, foreign}
    for server in servers:
        server.kill()
        server.communicate()


def test_nothing_is_made_for_a_child_that_moves_nothing_out_of_memory(tmp_path: Path) -> None:
    with ProcessEngine(workers=1, environment={spill.VARIABLE: str(tmp_path)}) as engine:
        assert engine.call(abs, -1) == 1
        assert list(tmp_path.iterdir()) == []


def test_processes_that_a_function_has_started_end_with_its_child(one: ProcessEngine, tmp_path: Path) -> None:
    """Their end is certain where Linux can signal the group of a process by its descriptor, from 6.9 on."""
    result = greendata.run(one.call, child_tasks.start_and_hold, str(tmp_path / "pid"))
    grandchild = Process(pid_in(tmp_path / "pid"))
    assert result.cancel_wait() is True
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 9):
        grandchild.wait_for_end()
    assert one.call(abs, -1) == 1


def test_a_child_that_closes_its_socket_and_lives_is_ended(one: ProcessEngine, tmp_path: Path) -> None:
    with pytest.raises(WorkerDied) as caught:
        one.call(child_tasks.close_socket_and_hold, str(tmp_path / "pid"))
    assert caught.value.status in (-signal.SIGKILL, None)
    assert is_gone(pid_in(tmp_path / "pid"))
    assert one.call(abs, -1) == 1


@pytest.mark.parametrize("text", [b"garbage", b"x" * 20, b"greendat" + b"\xff" * 12])
def test_what_a_function_writes_to_the_socket_is_not_an_answer(one: ProcessEngine, text: bytes) -> None:
    """Nobody waits for the rest of it: the function holds."""
    with pytest.raises(WorkerDied):
        one.call(child_tasks.write_to_socket, text)
    assert one.call(abs, -1) == 1


def test_a_stopped_child_that_reads_nothing_is_ended(one: ProcessEngine) -> None:
    """The request is larger than the buffer of the socket: the engine waits until it can send more."""
    os.kill(one.call(os.getpid), signal.SIGSTOP)
    with pytest.raises(WorkerDied):
        one.call(len, "x" * (32 << 20))
    assert one.call(len, "x" * (32 << 20)) == 32 << 20


def test_a_child_has_the_flags_and_the_directory_of_its_server(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from greendata.engines.process import ProcessEngine
from tests.support import child_tasks

with ProcessEngine(workers=1) as engine:
    print(engine.call(child_tasks.flags) == child_tasks.flags(), engine.call(os.getcwd) == os.getcwd())
    os.chdir(sys.argv[1])
    print(engine.call(os.getcwd) == os.getcwd(), engine.call(child_tasks.variables))
    sys.path.insert(0, Path("nowhere"))  # imports skip what is no text
    with ProcessEngine(workers=1) as another:
        print(another.call(child_tasks.import_path) == sys.path[1:])
"""
    arguments = [sys.executable, "-O", "-X", "utf8=0", "-X", "dev", "-W", "error::UserWarning", "-c", code]
    environment = {**os.environ, "GREENDATA_NICE": "0", "PYTHONPATH": str(ROOT)}
    finished = subprocess.Popen([*arguments, str(tmp_path)], cwd=ROOT, env=environment, stdout=-1, text=True)
    assert finished.communicate()[0] == "True True\nTrue []\nTrue\n"


def test_a_thread_that_is_interrupted_while_it_waits_for_a_child_leaves_the_queue(tmp_path: Path) -> None:
    """The main thread of a script, by Ctrl-C: a child that was given to it would be lost."""
    finished = run_python(
        """
        import os, signal
        from pathlib import Path
        from greendata.engines.process import ProcessEngine
        from greendata.errors import WorkerDied
        from greendata.hub import native
        from tests.support.child_tasks import hold
        from tests.support.natives import Native, until

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
        engine = ProcessEngine(workers=1)
        file = Path(os.environ["FOLDER"], "pid")

        def interrupt():
            until(lambda: engine._children.waiting)
            os.kill(os.getpid(), signal.SIGINT)

        holding = Native(engine.call, hold, str(file))
        while not file.exists():  # without a hub in this thread
            native.sleep(0.01)
        pid = int(file.read_text())
        interrupting = Native(interrupt)
        try:
            engine.call(abs, -1)
        except KeyboardInterrupt:
            print("interrupted", len(engine._children.waiting))
        os.kill(pid, signal.SIGKILL)
        try:
            holding.join()
        except WorkerDied:
            print(engine.call(abs, -1))
        engine.close()
        """,
        env={"FOLDER": str(tmp_path)},
    )
    assert finished == (0, "interrupted 0\n1\n", "")
