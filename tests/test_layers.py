"""The architecture: which floor each room is on, and through which doors foreign libraries come in.

`HOUSE` is the plan. A new room, or a new library in a room, is a line here first.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass

import pytest

from tests.house import MODULES, Module

EVERY = "every room"


@dataclass(frozen=True)
class Floor:
    """One storey: it imports the floors below it, its own rooms, and the foreign libraries it has a door for."""

    name: str
    rooms: str
    doors: dict[str, str]  # the library, and the rooms that may import it


# From the ground up.
HOUSE = (
    Floor(
        "errors",
        "arguments fetch formats groups jobs notes observe pipelines queries root sql typed validation web words",
        {"gevent": "jobs"},
    ),
    Floor("start", "autopatch importing", {}),
    Floor(
        "hub",
        "arrivals blocks bridge call caller checks children cleanup closing collector crew deadline fairness flight "
        "gevent_internals group hubs job locks logs mailbox native native_waits outcome pacing parking pool resident "
        "result scope settings sockets threads waiters",
        {"gevent": EVERY, "greenlet": EVERY},
    ),
    Floor(
        "frames",
        "addresses alchemy apart arrays arrowcheck arrowstream batches casts claims coded columns csvreader "
        "databases decoders depth derive dtypes encoders engine failures fetch fields footer fork formats forms "
        "framefile instances intake jsoncells jsonreader jsonrows jsonscan jsonshapes jsonsieve limits lines "
        "members models modelstream names namespace nested objects pages patch peers plan polars_internals "
        "postgres pydantic_internals quotas readers refusal roots rowgroups rules scans seam sieve spans sql "
        "sqlite statements stopper textrows texts threads thrift tokens trust typed urllib3_internals urls "
        "validation verbs verdicts wire writers",
        {
            "polars": EVERY,
            "pydantic": "apart coded derive failures fields instances jsonscan jsonsieve models modelstream nested "
            "objects pydantic_internals scans sieve textrows typed validation verdicts",
            "pydantic_core": "apart coded jsonreader jsonscan objects pydantic_internals sieve",
            "adbc_driver_manager": "databases postgres",
            "requests": "fetch peers",
            "urllib3": "fetch peers urllib3_internals",
            "gevent": "peers urls",
        },
    ),
    Floor("engines", "process ray", {"polars": EVERY, "ray": "ray"}),
    Floor(
        "flow",
        "channel crawl element injection nodes order progress run sinks stage stages step stream",
        {
            "requests": "crawl",
            "gevent": "channel nodes run step",
            "greenlet": "channel run",
            "polars": "sinks",
            "tqdm": "progress",
        },
    ),
    # Below the web, which shows what is observed; it knows the pool and Polars' seam, and no server.
    Floor(
        "observe",
        "blame client doctor histogram inline lag locks metrics record running site stats top trace watch",
        {
            "gevent": "blame doctor inline lag metrics site",
            "polars": "doctor site",
            "prometheus_client": "metrics",
            "rich": "top",
        },
    ),
    Floor(
        "web",
        "body dashboard drain flask gunicorn health negotiation problems respond scope shell",
        {
            "click": "shell",
            "flask": "body dashboard flask health negotiation problems respond shell",
            "gevent": "dashboard drain gunicorn scope",
            "gunicorn": "gunicorn",
            "polars": "body respond",
            "werkzeug": "body flask problems respond",
        },
    ),
    Floor("top", "__main__ monkey testing", {}),
)
FLOORS = {floor.name: floor for floor in HOUSE}
HEIGHT = {floor.name: height for height, floor in enumerate(HOUSE)}

# Parts of the standard library that have no place in the package.
FORBIDDEN = {
    "asyncio": "this package is for greenlets",
    "concurrent": "after monkey.patch_all its threads are greenlets; submit to the pool",
    "queue": "after monkey.patch_all it blocks greenlets, not threads; use greendata.hub.native",
    "threading": "after monkey.patch_all its locks and threads are greenlets; use greendata.hub.native",
}

# The rooms that change what `monkey.patch_all` has put there, for threads without a hub.
SHARED = {"concurrent": "threads", "queue": "locks", "threading": "locks threads"}

PLACES = {module.name: module.place for module in MODULES}

every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


@every_module
def test_every_file_is_a_room_of_the_plan(module: Module) -> None:
    floor, room = module.place
    assert floor in FLOORS
    assert room in {"__init__", *FLOORS[floor].rooms.split()}


@every_module
def test_imports_go_down(module: Module) -> None:
    height = HEIGHT[module.place[0]]
    upwards = [
        f"line {found.line}: {found.target}"
        for found in module.imports
        if (target := _within(found.target)) and HEIGHT[PLACES[target][0]] > height
    ]
    assert not upwards


@every_module
def test_foreign_libraries_come_in_through_their_doors(module: Module) -> None:
    floor, room = module.place
    open_doors = {library for library, rooms in FLOORS[floor].doors.items() if rooms == EVERY or room in rooms.split()}
    strangers = [
        f"line {found.line}: {found.target}"
        for found in module.imports
        if (library := found.target.split(".")[0]) not in sys.stdlib_module_names
        and library not in {"greendata", *open_doors}
    ]
    assert not strangers


@every_module
def test_forbidden_parts_of_the_standard_library_stay_out(module: Module) -> None:
    found = [
        f"line {found.line}: {found.target}: {FORBIDDEN[library]}"
        for found in module.imports
        if (library := found.target.split(".")[0]) in FORBIDDEN
        and module.place[1] not in SHARED.get(library, "").split()
    ]
    assert not found


def test_no_two_rooms_import_each_other() -> None:
    below = {
        module.name: {target for found in module.imports if found.at_import and (target := _within(found.target))}
        for module in MODULES
    }
    while free := [name for name, targets in below.items() if not targets & below.keys() - {name}]:
        for name in free:
            del below[name]
    assert not below, f"{len(below)} modules are part of a circle of imports, or stand on one"


def test_the_shop_window_holds_no_logic() -> None:
    window = next(module for module in MODULES if module.name == "greendata")
    docstring, *statements = window.tree.body
    assert isinstance(docstring, ast.Expr)
    loading = {
        "TYPE_CHECKING",
        "__all__",
        "__version__",
        "_HOMES",
        "_MODULES",
        "__getattr__",
        "__dir__",
        "when_imported",
    }
    assert [ast.unparse(found) for found in statements if _subject(found) not in loading] == []


def _subject(statement: ast.stmt) -> str | None:
    """What is assigned, defined, tested or called; imports are of no interest."""
    match statement:
        case ast.ImportFrom():
            return "__all__"
        case (
            ast.Assign(targets=[ast.Name(id=name)])
            | ast.FunctionDef(name=name)
            | ast.If(test=ast.Name(id=name) | ast.UnaryOp(operand=ast.Name(id=name)))
        ):
            return name
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            return name
    return None


def _within(target: str) -> str | None:
    """The module of the package that an import of *target* runs, or None for one from elsewhere."""
    if target in PLACES:
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in PLACES else None
