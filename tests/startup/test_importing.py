"""Functions that wait for a module to be imported, together with other import hooks, failures and threads."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from greendata.startup import importing
from greendata.startup.importing import is_being_imported, when_imported
from tests.support.processes import run_python


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a package that has not been imported."""
    package = tmp_path / "awaited_package"
    package.mkdir()
    (package / "__init__.py").write_text("from awaited_package import part\nvalue = part.value\n", encoding="utf-8")
    (package / "part.py").write_text("value = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield package.name
    importing._awaited.pop(package.name, None)
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def test_a_loaded_module_is_notified_at_once() -> None:
    seen: list[str] = []
    when_imported("sys", lambda: seen.append("now"))
    assert seen == ["now"]


def test_the_function_runs_at_the_import_and_imports_nothing(module: str) -> None:
    seen: list[object] = []
    when_imported(module, lambda: seen.append(sys.modules[module].value))
    when_imported(module, lambda: seen.append(is_being_imported(module)))
    assert module not in sys.modules
    importlib.import_module(module)
    importlib.import_module(module)
    importlib.reload(sys.modules[module])
    assert seen == [1, True]
    assert not is_being_imported(module)


def test_the_module_looks_as_usual(module: str) -> None:
    when_imported(module, int)
    found = importlib.import_module(module)
    spec = found.__spec__
    assert spec is not None
    assert type(found.__loader__).__name__ == type(spec.loader).__name__ == "SourceFileLoader"
    assert spec.loader is found.__loader__


def test_looking_for_a_module_does_not_import_it(module: str) -> None:
    seen: list[int] = []
    when_imported(module, lambda: seen.append(1))
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.loader is not None
    assert "value" in str(spec.loader.get_source(module))  # type: ignore[attr-defined]
    assert (seen, module in sys.modules) == ([], False)
    importlib.import_module(module)
    assert seen == [1]


def test_a_module_that_is_missing_is_missing() -> None:
    when_imported("a_module_that_is_missing", int)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("a_module_that_is_missing")


def test_an_import_that_fails_may_be_tried_again(module: str, tmp_path: Path) -> None:
    part = tmp_path / module / "part.py"
    part.write_text("raise RuntimeError('not yet')\n", encoding="utf-8")
    seen: list[int] = []
    when_imported(module, lambda: seen.append(1))
    with pytest.raises(RuntimeError, match="not yet"):
        importlib.import_module(module)
    assert seen == []
    part.write_text("value = 22\n", encoding="utf-8")
    importlib.import_module(module)
    assert seen == [1]


def test_a_function_that_fails_fails_the_import_and_is_called_at_the_next(module: str) -> None:
    outcomes = [OSError("no patch"), None]
    seen: list[str] = []

    def fail_once() -> None:
        seen.append("called")
        if (error := outcomes.pop(0)) is not None:
            raise error

    when_imported(module, fail_once)
    when_imported(module, lambda: seen.append("after"))
    with pytest.raises(OSError, match="no patch"):
        importlib.import_module(module)
    assert (seen, module in sys.modules) == (["called"], False)
    importlib.import_module(module)
    assert seen == ["called", "called", "after"]


def test_a_finder_that_calls_all_the_others_does_not_recurse(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nosy:
        """A naive finder: it calls every other finder."""

        def find_spec(self, name: str, path: object = None, target: object = None) -> object:
            for finder in sys.meta_path:
                if finder is not self and (spec := finder.find_spec(name, path, target)):  # type: ignore[arg-type]
                    return spec
            return None

    for before_ours in (True, False):
        seen: list[int] = []
        when_imported(module, lambda seen=seen: seen.append(1))  # type: ignore[misc]
        finders = [Nosy(), *sys.meta_path] if before_ours else [*sys.meta_path[:1], Nosy(), *sys.meta_path[1:]]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "meta_path", finders)
            importlib.import_module(module)
        assert seen == [1]
        del sys.modules[module]


def test_a_module_that_another_thread_is_importing_is_waited_for(module: str, tmp_path: Path) -> None:
    (tmp_path / module / "part.py").write_text("import __main__\n__main__.gate()\nvalue = 1\n", encoding="utf-8")
    finished = run_python(
        f"""
        import sys, threading
        sys.path.insert(0, {str(tmp_path)!r})
        from greendata.startup.importing import when_imported
        from tests.support.gates import Gate

        gate, seen = Gate(), []
        importer = threading.Thread(target=__import__, args=[{module!r}])
        importer.start()
        gate.wait_arrived()
        register = lambda: when_imported({module!r}, lambda: seen.append(sys.modules[{module!r}].value))
        waiter = threading.Thread(target=register)
        waiter.start()
        gate.open()
        importer.join()
        waiter.join()
        print(seen)
        """
    )
    assert finished == (0, "[1]\n", "")
