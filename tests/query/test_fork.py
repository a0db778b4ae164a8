"""After a fork of a process in which Polars has run, every execution raises at once. Without a query none does."""

from __future__ import annotations

import textwrap
from pathlib import Path

import polars as pl
import pytest

from greendata.query.patching import fork_guard
from tests.support.processes import run_python

pytestmark = pytest.mark.once("unpatched")  # each test runs a separate process

# Runs one piece of work in a forked child, which leaves its answer in a file.
IN_CHILD = """
import os, sys, tempfile
import gevent
import polars as pl
import greendata
{setup}

lf, df = pl.LazyFrame({{"a": [1, 2]}}), pl.DataFrame({{"a": [1, 2]}})

def outcome(work):
    try:
        return f"gave {{work()}}"
    except BaseException as error:
        return f"{{type(error).__name__}}: {{error}}"

def in_child(work):
    with tempfile.NamedTemporaryFile() as answer:
        child = os.fork()
        if not child:
            with open(answer.name, "w") as file:
                file.write(outcome(work))
            os._exit(0)
        os.waitpid(child, 0)
        return answer.read().decode()
"""

REMEDY = "Run no query before the fork: load data in post_worker_init or on the first request"

QUERIES = {
    "a verb": "greendata.collect(lf)",
    "another verb": "greendata.write_csv(df)",
    "run": "greendata.run(sum, [1, 2])",
    "batches": "next(greendata.batches(lf))",
    "GreenEngine": "lf.collect(engine=greendata.GreenEngine())",
    "collect": "lf.collect()",
    "collect streaming": "lf.collect(engine='streaming')",
    "collect_all": "pl.collect_all([lf])",
    "collect_async": "lf.collect_async(gevent=True)",
    "collect_batches": "next(lf.collect_batches())",
    "collect in the background": "lf.collect(background=True)",
    "filter": "df.filter(pl.col('a') > 1)",
    "group_by": "df.group_by('a').len()",
    "read_parquet": "pl.read_parquet('nothing.parquet')",
    "read_csv": "pl.read_csv(b'a\\n1\\n')",
    "write_parquet": "df.write_parquet('/dev/null')",
    "sink_csv": "lf.sink_csv('/dev/null')",
    "explain": "lf.explain()",
    "SQL": "df.sql('select a from self')",
    "Series.sort": "df['a'].sort()",
}

SETUPS = {
    "unpatched": "pl.select(1)",
    "patched Polars": "gevent.get_hub(); greendata.patch_polars(); pl.select(1)",
    # gevent watches SIGCHLD from its first fork on and misses children that ended before, so start watching first.
    "all patched": "from gevent import monkey; monkey.patch_all(); greendata.patch_polars(); pl.select(1);"
    "gevent.get_hub().loop.install_sigchld()",
    "after a verb": "greendata.run(pl.select, 1).get()",
}


def run(code: str, setup: str) -> list[str]:
    finished = run_python(IN_CHILD.format(setup=setup) + textwrap.dedent(code), warnings="default")
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout.splitlines()


@pytest.mark.parametrize("setup", SETUPS)
def test_every_execution_in_the_child_is_refused_with_the_remedy(setup: str) -> None:
    lines = run("".join(f"print(in_child(lambda: {query}))\n" for query in QUERIES.values()), SETUPS[setup])
    assert len(lines) == len(QUERIES)
    for name, line in zip(QUERIES, lines, strict=True):
        assert line.startswith("PolarsForked: this process was forked after its parent had run"), (name, line)
        assert REMEDY in line


class Tasks:
    """Replaces `greendata.hub.native`: returns the given threads call by call, and the last ones from then on.

    The thread ids do not exist, so the system has no further data about these threads.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: dict[int, str]) -> None:
        self.pauses = 0
        self._looks = list(looks)
        monkeypatch.setattr(fork_guard, "native", self)

    def thread_names(self) -> dict[int, str]:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    def sleep(self, _: float) -> None:
        self.pauses += 1


UNKNOWN = dict.fromkeys(range(-1000, 0), "python")  # more threads than this process has
NAMED = UNKNOWN | {-1: "polars-0"}


def test_threads_that_have_no_name_yet_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Tasks(monkeypatch, UNKNOWN, UNKNOWN, NAMED)
    monkeypatch.setattr(fork_guard, "_is_young", lambda task: task == -1)
    assert fork_guard.polars_has_run()


def test_threads_that_have_not_had_the_processor_yet_are_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    Tasks(monkeypatch, *[UNKNOWN] * (fork_guard.PAUSES + 9), NAMED)
    monkeypatch.setattr(fork_guard, "_is_about_to_run", lambda task: task == -1)
    assert fork_guard.polars_has_run()


def test_threads_of_other_libraries_are_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(monkeypatch, UNKNOWN)
    monkeypatch.setattr(fork_guard, "_is_young", lambda task: task == -1)
    assert not fork_guard.polars_has_run()
    assert tasks.pauses == fork_guard.PAUSES


def test_old_threads_of_other_libraries_do_not_delay_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(monkeypatch, UNKNOWN)
    assert not fork_guard.polars_has_run()
    assert tasks.pauses == 0


def test_the_parent_continues() -> None:
    code = """
        in_child(lambda: lf.collect())
        print(lf.collect().height, greendata.collect(lf).get(timeout=60).height, df.filter(pl.col("a") > 1).height)
    """
    assert run(code, SETUPS["patched Polars"]) == ["2 2 1"]


def test_operations_that_compute_nothing_work_in_the_child() -> None:
    assert run(
        "print(in_child(lambda: (df.height, df['a'][0], lf.select('a').filter(True) is None)))", "pl.select(1)"
    ) == ["gave (2, 1, False)"]


@pytest.mark.parametrize("setup", ["pass", "greendata.patch_polars(); gevent.get_hub()", "greendata.run(int).get()"])
def test_before_any_query_forking_is_fine(setup: str) -> None:
    queries = [
        "lf.collect().height",
        "greendata.collect(lf).get(timeout=60).height",
        "df.filter(pl.col('a') > 1).height",
    ]
    lines = run("".join(f"print(in_child(lambda: {query}))\n" for query in queries), setup)
    assert lines == ["gave 2", "gave 2", "gave 1"]


def test_a_grandchild_is_refused_as_well() -> None:
    assert run("print(in_child(lambda: in_child(lambda: lf.collect())))", "pl.select(1)")[0].startswith(
        "gave PolarsForked: "
    )


def test_a_child_may_run_polars_and_then_its_children_are_refused() -> None:
    code = "print(in_child(lambda: f'{lf.collect().height} {in_child(lambda: lf.collect())}'))"
    (line,) = run(code, "pass")
    assert line.startswith("gave 2 PolarsForked: ")


def test_multiprocessing_by_fork_is_refused_and_by_spawn_is_fine() -> None:
    finished = run_python(
        """
        import multiprocessing, polars as pl, greendata

        def height(method):
            try:
                return pl.DataFrame({"a": [1]}).filter(pl.col("a") > 0).height
            except greendata.PolarsForked as error:
                return type(error).__name__

        if __name__ == "__main__":
            pl.select(1)
            with multiprocessing.get_context("fork").Pool(1) as pool:
                print(pool.map(height, ["fork"]))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(abs, [-1]))
        """,
        warnings="default",
    )
    assert (finished.returncode, finished.stdout) == (0, "['PolarsForked']\n[1]\n")


def test_other_programs_are_not_forks() -> None:
    code = """
        import subprocess
        command = [sys.executable, "-c", "import polars, greendata; print(polars.select(7).item())"]
        print(subprocess.run(command, capture_output=True, text=True).stdout, end="")
    """
    assert run(code, SETUPS["all patched"]) == ["7"]
    assert run(code, SETUPS["unpatched"]) == ["7"]


# A parent without greendata, which comes in the child.
LATE = """
import os, sys
import polars as pl
{setup}
sys.stdout.flush()
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def outcome(work):
    try:
        return f"gave {{work()}}"
    except BaseException as error:
        return type(error).__name__

def end(code=0):
    sys.stdout.flush()
    os._exit(code)
"""

NEVER_RAN = "pl.LazyFrame({'a': [1]}).filter(pl.col('a') > 0); pl.Series([2, 1]).len()"
LATE_QUERIES = {
    "plain": "pl.select(7).item()",
    "a verb": "greendata.run(pl.select, 7).get(timeout=60).item()",
    "patched": "(greendata.patch_polars(), pl.select(7).item())[1]",
    "handed off": "pl.LazyFrame({'a': [7]}).collect_async(gevent=True).get(timeout=60).item()",
    "the doctor": "[str(found.verdict) for found in greendata.doctor.examine() if found.name == 'fork'][0]",
}


def late(code: str, setup: str) -> tuple[list[str], str]:
    finished = run_python(LATE.format(setup=setup) + textwrap.dedent(code) + "end()\n", warnings="default")
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines(), finished.stderr


@pytest.mark.parametrize("query", LATE_QUERIES)
def test_a_fork_without_a_query_is_never_refused(query: str) -> None:
    code = f"import greendata\nfor _ in range(2): print(outcome(lambda: {LATE_QUERIES[query]}))\n"
    answer = "gave ok" if query == "the doctor" else "gave 7"
    assert late(code, NEVER_RAN) == ([answer] * 2, "")


@pytest.mark.parametrize("query", LATE_QUERIES)
def test_a_query_before_the_fork_is_seen_by_a_child_that_loads_greendata_late(query: str) -> None:
    code = f"import greendata\nfor _ in range(2): print(outcome(lambda: {LATE_QUERIES[query]}))\n"
    lines, log = late(code, "pl.select(1)")
    assert lines == ["gave fail" if query == "the doctor" else "PolarsForked"] * 2
    assert log.count("this process was forked after its parent had run") == (
        query in {"plain", "patched", "handed off"}
    )


# What starts no more than Polars' runtime for files.
SCHEMAS = {
    "schema": "pl.scan_parquet('{path}').collect_schema()",
    "plan": "pl.scan_parquet('{path}').explain()",
    "read_parquet_schema": "pl.read_parquet_schema('{path}')",
}


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [7]}).write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("schema", "guard"),
    [("schema", "pass"), ("schema", "import greendata"), ("plan", "pass"), ("read_parquet_schema", "pass")],
)
def test_a_schema_read_before_the_fork_is_refused_like_a_query(schema: str, guard: str, parquet: Path) -> None:
    code = f"import greendata\nprint(outcome(lambda: pl.read_parquet('{parquet}').item()))\n"
    lines, log = late(code, f"{guard}; {SCHEMAS[schema].format(path=parquet)}")
    assert lines == ["PolarsForked"]
    assert log.count("this process was forked after its parent had run") == 1


@pytest.mark.parametrize(
    ("use", "guard"),
    [("plain", "pass"), ("plain", "import greendata"), ("after a patch", "pass"), ("in a job", "pass")],
)
def test_the_runtime_of_another_library_is_not_refused(use: str, guard: str, parquet: Path, tmp_path: Path) -> None:
    other = f"import deltalake, pyarrow; deltalake.write_deltalake('{tmp_path}/delta', pyarrow.table({{'a': [1]}}))"
    read = f"pl.read_parquet('{parquet}').item()"
    work = {
        "plain": read,
        "after a patch": f"(__import__('gevent').get_hub(), greendata.patch_polars(), {read})[2]",
        "in a job": f"greendata.run(lambda: {read}).get(timeout=60)",
    }
    code = f"import greendata\nfor _ in range(2): print(outcome(lambda: {work[use]}))\n"
    assert late(code, f"{guard}; {other}") == (["gave 7", "gave 7"], "")


def test_threads_that_polars_has_in_the_child_are_seen_however_they_were_started() -> None:
    code = "import greendata; pl.thread_pool_size(); print(outcome(lambda: pl.select(7).item()))\n"
    assert late(code, "pass") == (["gave 7"], "")


def test_a_child_of_an_undecided_child() -> None:
    code = """
import greendata
grandchild = os.fork()
if grandchild:
    end(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
print(outcome(lambda: pl.select(7).item()))
"""
    assert late(code, "pass")[0] == ["gave 7"]
    assert late(code, "pl.select(1)")[0] == ["PolarsForked"]


def test_a_polars_without_some_functions_is_refused_where_it_has_them() -> None:
    lacking = "del pl._plr.PyLazyFrame.to_dot, pl._plr.PyDataFrame.is_unique"
    code = "import greendata\nprint(outcome(lambda: pl.select(7).item()))\n"
    assert late(code, f"import polars._plr; {lacking}; pl.select(1)")[0] == ["PolarsForked"]
    assert late(code, f"import greendata; {lacking}; pl.select(1)")[0] == ["PolarsForked"]
    assert late(code, f"import polars._plr; {lacking}") == (["gave 7"], "")


def test_a_child_that_imports_polars_itself_needs_no_check() -> None:
    code = """
import greendata, polars as pl
from greendata.query.patching.function_patch import is_patched
print(is_patched("a fork"), outcome(lambda: pl.select(7).item()))
"""
    fresh = LATE.replace("import polars as pl\n", "").format(setup="pass") + code + "end()\n"
    assert run_python(fresh) == (0, "False gave 7\n", "")
