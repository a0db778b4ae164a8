"""What works after a fork in which Polars was lost, with ``configure(on_fork="process")``, and what says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import children_end, run_python

pytestmark = [pytest.mark.once("unpatched"), children_end]  # each test runs a separate process

PROGRAM = """
import io, os
from pathlib import Path
import gevent
{head}
import polars as pl
import greendata
import polars.selectors as cs
from gevent.monkey import get_original

greendata.configure(on_fork="process")
folder = {folder!r}
pieces = pl.concat([pl.select(a=pl.int_range(1000)) for _ in range(20)], rechunk=False)
mixed = pl.DataFrame({{"b": [str(number) for number in range(20_000)]}}).hstack(pieces)
pl.DataFrame({{"a": [1, 2]}}).write_parquet(folder + "/a.parquet")
before, lf = pl.LazyFrame({{"a": [3, 1, 2]}}), pl.LazyFrame({{"a": [1, 2]}})
in_pieces = pieces.lazy().sum()

def outcome(work):
    try:
        return str(work())
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"

read, write = os.pipe()
if not (child := os.fork()):
    os.close(read)
    {setup}
    from greendata.engines import after_fork
    after_fork.SERIALIZE_TIMEOUT = 0.2
    df = pl.DataFrame({{"a": [3, 1, 2], "b": ["x", "y", "x"]}})
    with open(write, "w") as answers:
        for text in {works!r}:
            answers.write(repr(outcome(lambda: eval(text, globals()))) + "\\n")
        answers.flush()
    after_fork._engine().close()
    os._exit(0)
get_original("os", "close")(write)  # gevent's waits for the next loop of the hub
print(open(read).read(), end="")
get_original("os", "waitpid")(child, 0)
"""

WORKS = {
    "before.collect()['a'].to_list()": "[3, 1, 2]",
    "before.collect(engine='streaming')['a'].to_list()": "[3, 1, 2]",
    "before.sort('a').collect()['a'].to_list()": "[1, 2, 3]",
    "[frame.height for frame in pl.collect_all([before, before.head(1)])]": "[3, 1]",
    "[batch.height for batch in before.collect_batches(chunk_size=2)]": "[2, 1]",
    "'FILTER' in before.filter(pl.col('a') > 1).explain()": "True",
    "dict(before.collect_schema())": "{'a': Int64}",
    "pl.scan_parquet(folder + '/a.parquet').sum().collect().item()": "3",
    "dict(pl.scan_parquet(folder + '/a.parquet').collect_schema())": "{'a': Int64}",
    "pl.read_parquet(folder + '/a.parquet').height": "2",
    "before.sink_csv(folder + '/b.csv') or Path(folder, 'b.csv').read_text()": "a\n3\n1\n2\n",
    "df.write_csv(folder + '/c.csv') or Path(folder, 'c.csv').read_text()": "a,b\n3,x\n1,y\n2,x\n",
    "df.write_parquet(folder + '/c.parquet') or pl.read_parquet(folder + '/c.parquet').equals(df)": "True",
    "df.filter(pl.col('a') > 1)['a'].to_list()": "[3, 2]",
    "df.sort('a')['a'].to_list()": "[1, 2, 3]",
    "df.group_by('b').len().sort('b').rows()": "[('x', 2), ('y', 1)]",
    "df.join(df, on='a').height": "3",
    "df.sql('select sum(a) from self').item()": "6",
    "pl.concat([df, df]).height": "6",
    "pieces.filter(pl.col('a') >= 0).sum().item()": "9990000",
    "mixed.lazy().select(pl.col('a').sum(), pl.col('b').last()).collect().row(0)": "(9990000, '19999')",
    "mixed.select(cs.string()).height": "20000",
    "lf.select(pl.col('a').map_elements(lambda a: 5, return_dtype=pl.Int64)).collect()['a'].to_list()": "[5, 5]",
    "greendata.collect(before).get().height": "3",
    "greendata.run(sum, [1, 2]).get()": "3",
    "greendata.explain(before).get().startswith('DF')": "True",
    "sum(batch.height for batch in greendata.batches(before))": "3",
    "before.collect(engine=greendata.GreenEngine()).height": "3",
    "before.collect_async(gevent=True, engine=greendata.GreenEngine()).get().height": "3",
    "df.rows()[0], df.to_dicts()[1], df['a'].sum(), df.height": "((3, 'x'), {'a': 1, 'b': 'y'}, 6, 3)",
    "pieces.lazy().select(pl.all().repeat_by(50).explode()).collect().rows()[-1]": "(999,)",
    "pieces.rows()[-1], mixed.to_dicts()[-1]": "((999,), {'b': '19999', 'a': 999})",
    "pieces.rechunk().n_chunks(), pieces.n_chunks()": "(1, 20)",
    "pieces.write_ipc_stream(out := io.BytesIO()) or pl.read_ipc_stream(out.getvalue()).height": "20000",
    "df.write_json()": '[{"a":3,"b":"x"},{"a":1,"b":"y"},{"a":2,"b":"x"}]',
}
REFUSED = {
    "in_pieces.collect()": "PolarsForked: a LazyFrame from before the fork whose frame has several chunks",
    "df.write_csv()": "NotSendable: cannot run in a child process: ",
    "df.to_arrow()": "PolarsForked: PyDataFrame.to_arrow cannot run in this process",
    "df[[0, 1]]": "PolarsForked: PyDataFrame.gather",
    "df['a'].sort()": "PolarsForked: PySeries.sort cannot run in this process",
    "df.partition_by('b')": "PolarsForked: PyDataFrame.partition_by cannot run in this process",
    "before.collect_async(gevent=True)": "PolarsForked: PyLazyFrame.collect_with_callback cannot run",
    "before.collect(background=True)": "PolarsForked: PyLazyFrame.collect_concurrently cannot run",
}
SETUPS = {
    "unpatched": ("", "pass"),
    "patched": ("from gevent import monkey; monkey.patch_all()", "greendata.patch_polars()"),
}


@pytest.mark.parametrize("setup", SETUPS)
def test_what_works_and_what_is_refused_after_a_fork(setup: str, tmp_path: Path) -> None:
    head, after = SETUPS[setup]
    works = [*WORKS, *REFUSED]
    program = PROGRAM.format(folder=str(tmp_path), works=works, head=head, setup=after)
    finished = run_python(program, warnings="default", timeout=120)
    assert finished.returncode == 0, finished.stderr
    answers = [eval(line) for line in finished.stdout.splitlines()]
    found = dict(zip(works, answers, strict=True))
    assert {work: found[work] for work in WORKS} == WORKS
    wrong = {work: found[work] for work, text in REFUSED.items() if not found[work].startswith(text)}
    assert wrong == {}
