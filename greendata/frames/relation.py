"""Operations on frames whose rows have a model: each is checked against the columns, and settles the model after it.

`Relation` is what `greendata.frames.typed.Frame` stands on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, cast

import polars as pl
from pydantic import BaseModel

from greendata.errors import NoModel, NotAFrame
from greendata.frames.derive import check_fit, model_after
from greendata.frames.names import column, referred
from greendata.frames.plan import planned
from greendata.frames.roots import Sources
from greendata.frames.validation import Trust
from greendata.hub import pool

if TYPE_CHECKING:
    from polars._typing import IntoExpr, JoinStrategy, UniqueKeepStrategy

    from greendata.frames.typed import Frame

__all__ = ("GroupedFrame", "Relation")

M = TypeVar("M", bound=BaseModel)
N = TypeVar("N", bound=BaseModel)


class Relation(Generic[M]):
    """A plan, its columns, and the model of its rows; immutable.

    Attributes:
        model: the class of the rows.
        schema: the columns of the plan, before the validation.
        plan: the lazy frame itself, whose rows nobody has validated.
        trust: of the validation, see `greendata.frames.validation.validate`.
    """

    __slots__ = ("_sources", "plan", "schema", "trust")

    model: ClassVar[type[BaseModel]]

    def __init__(self, plan: pl.LazyFrame, schema: pl.Schema, *, trust: Trust, sources: tuple[Sources, ...]) -> None:
        self.plan = plan
        self.schema = schema
        self.trust: Trust = trust
        self._sources = sources

    def __class_getitem__(cls, model: Any) -> Any:
        """The class of frames of *model*, one for each; with a type variable, what typing makes of it."""
        if isinstance(model, TypeVar):
            return super().__class_getitem__(model)  # type: ignore[misc]
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise NoModel(model)
        bound = _bound.get(model)
        if bound is None:
            bound = _bound[model] = type(
                f"Frame[{model.__name__}]", (cls._family(),), {"__slots__": (), "model": model}
            )
        return bound

    # -- operations that keep the model -----------------------------------------------------------------

    def filter(self, *predicates: IntoExpr | Iterable[IntoExpr], **constraints: object) -> Self:
        """Rows for which all *predicates* hold, and whose columns are equal to the *constraints*.

        As every operation it raises `UnknownColumn` and `PlanRefused`.
        """
        equal = [column(name) == value for name, value in constraints.items()]
        held = self._held(predicates)
        return self._kept("filter", lambda lf: lf.filter(*held, *equal))

    def sort(self, by: IntoExpr | Iterable[IntoExpr], *more_by: IntoExpr, **options: Any) -> Self:
        """Rows in order; *options* as of `polars.LazyFrame.sort`."""
        held = self._held((by, *more_by))
        return self._kept("sort", lambda lf: lf.sort(*held, **options))

    def unique(self, subset: str | Iterable[str] | None = None, *, keep: UniqueKeepStrategy = "any") -> Self:
        """Rows that differ, in any column or in those of *subset*, in the order in which they came."""
        names = [subset] if isinstance(subset, str) else subset and list(subset)
        columns = referred(names, self.schema)
        return self._kept("unique", lambda lf: lf.unique(columns, keep=keep, maintain_order=True))

    def head(self, rows: int = 5) -> Self:
        """The first *rows* rows."""
        return self._kept("head", lambda lf: lf.head(rows))

    limit = head

    def tail(self, rows: int = 5) -> Self:
        """The last *rows* rows."""
        return self._kept("tail", lambda lf: lf.tail(rows))

    def slice(self, offset: int, length: int | None = None) -> Self:
        """*length* rows from *offset* on."""
        return self._kept("slice", lambda lf: lf.slice(offset, length))

    def with_columns(self, *exprs: IntoExpr | Iterable[IntoExpr], **named: IntoExpr) -> Frame[M]:
        """More columns, or others in the place of those of their names, if they can be the model's.

        Raises:
            ModelMismatch: a column of the model would get a type that it cannot have.
        """
        held, so_named = self._held(exprs), self._named(named)
        lf, schema = self._planned("with_columns", lambda lf: lf.with_columns(*held, **so_named))
        check_fit(schema, self.model)
        before = pl.Schema({name: schema[name] for name in self.schema})
        model = model_after("with_columns", self.model, before, schema)
        return cast("Frame[M]", self._next(model, lf, schema))

    # -- operations that change it ----------------------------------------------------------------------

    def select(self, *exprs: IntoExpr | Iterable[IntoExpr], **named: IntoExpr) -> Frame[BaseModel]:
        """These columns."""
        held, so_named = self._held(exprs), self._named(named)
        lf, schema = self._planned("select", lambda lf: lf.select(*held, **so_named))
        return self._next(model_after("select", self.model, self.schema, schema, names_all=True), lf, schema)

    def drop(self, *columns: str) -> Frame[BaseModel]:
        """All columns but these."""
        held = self._held(columns)
        return self._changed("drop", lambda lf: lf.drop(*held))

    def rename(self, names: Mapping[str, str]) -> Frame[BaseModel]:
        """The same columns with other names; what is renamed gets a field of its type, without constraints."""
        return self._changed("rename", lambda lf: lf.rename(dict(names)))

    def join(
        self,
        other: Frame[Any] | pl.LazyFrame | pl.DataFrame,
        on: str | pl.Expr | Iterable[str | pl.Expr] | None = None,
        *,
        how: JoinStrategy = "inner",
        **options: Any,
    ) -> Frame[BaseModel]:
        """Rows of both frames side by side; *options* as of `polars.LazyFrame.join`. *other* is not validated.

        The order of the rows is that of this frame, unless ``maintain_order`` says otherwise.
        """
        lazy, schema, sources = _operand(other)
        chosen: dict[str, Any] = {"maintain_order": "left", **options}
        columns = referred(list(on) if on is not None and not isinstance(on, str | pl.Expr) else on, self.schema)
        sides = {"left_on": self.schema, "right_on": schema}
        chosen |= {side: referred(chosen[side], names) for side, names in sides.items() if side in chosen}
        return self._changed(
            "join", lambda lf, right: lf.join(right, columns, how, **chosen), (lazy, schema), sources=sources
        )

    def group_by(self, *by: IntoExpr | Iterable[IntoExpr], **named: IntoExpr) -> GroupedFrame:
        """Rows in groups, for `GroupedFrame.agg`."""
        return GroupedFrame(self, by, named)

    def as_model(self, model: type[N]) -> Frame[N]:
        """The same rows as *model*.

        Raises:
            ModelMismatch: its columns cannot be these.
        """
        bound = cast("type[Frame[N]]", self._family()[model])
        check_fit(self.schema, model)
        return bound(self.plan, self.schema, trust=self.trust, sources=self._sources)

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}: {dtype}" for name, dtype in self.schema.items())
        return f"<{type(self).__name__} of {columns}>"

    # -- private -----------------------------------------------------------------------------------------

    @classmethod
    def _own_model(cls) -> type[M]:
        if not hasattr(cls, "model"):
            raise NoModel
        return cast("type[M]", cls.model)

    def _row_model(self) -> type[M]:
        return cast("type[M]", self.model)

    @classmethod
    def _family(cls) -> Any:
        """The class that takes a model in brackets: the nearest one that is bound to none."""
        return next(base for base in cls.__mro__ if not hasattr(base, "model"))

    def _held(self, exprs: tuple[Any, ...]) -> tuple[Any, ...]:
        """*exprs* for more than one use, since they are tried on no rows before; names of columns are no patterns."""
        held = (list(expr) if isinstance(expr, Iterator) else expr for expr in exprs)
        return tuple(referred(expr, self.schema) for expr in held)

    def _named(self, exprs: Mapping[str, Any]) -> dict[str, Any]:
        """Likewise, of expressions that are given by keyword."""
        return {name: referred(expr, self.schema) for name, expr in exprs.items()}

    def _planned(
        self, verb: str, build: Callable[..., pl.LazyFrame], *others: tuple[pl.LazyFrame, pl.Schema]
    ) -> tuple[pl.LazyFrame, pl.Schema]:
        schema = pool.call(planned, verb, (self.schema, *(schema for _, schema in others)), build)
        return build(self.plan, *(lf for lf, _ in others)), schema

    def _kept(self, verb: str, build: Callable[..., pl.LazyFrame]) -> Self:
        lf, schema = self._planned(verb, build)
        return type(self)(lf, schema, trust=self.trust, sources=self._sources)

    def _changed(
        self,
        verb: str,
        build: Callable[..., pl.LazyFrame],
        *others: tuple[pl.LazyFrame, pl.Schema],
        computed: frozenset[str] = frozenset(),
        sources: tuple[Sources, ...] = (),
    ) -> Frame[BaseModel]:
        lf, schema = self._planned(verb, build, *others)
        model = model_after(verb, self.model, self.schema, schema, computed=computed)
        return self._next(model, lf, schema, sources)

    def _next(
        self, model: type[BaseModel], lf: pl.LazyFrame, schema: pl.Schema, sources: tuple[Sources, ...] = ()
    ) -> Frame[BaseModel]:
        bound = cast("type[Frame[BaseModel]]", self._family()[model])
        return bound(lf, schema, trust=self.trust, sources=(*self._sources, *sources))


class GroupedFrame:
    """Rows of a frame in groups. Get one from `Frame.group_by`.

    Example:
        >>> from greendata import Frame
        >>> class Sale(BaseModel):
        ...     city: str
        ...     amount: int
        >>> sales = Frame[Sale].from_columns({"city": ["Rome", "Oslo", "Rome"], "amount": [1, 2, 3]})
        >>> sales.group_by("city").agg(pl.col("amount").sum()).sort("city").to_dict()
        {'city': ['Oslo', 'Rome'], 'amount': [2, 4]}
    """

    def __init__(self, frame: Relation[Any], by: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        self._frame = frame
        self._by = frame._held(by)
        self._named = frame._named(named)

    def agg(self, *exprs: IntoExpr | Iterable[IntoExpr], **named: IntoExpr) -> Frame[BaseModel]:
        """One row for each group, in the order of their first rows; the columns computed get fields of their types."""
        frame = self._frame
        held, so_named = frame._held(exprs), frame._named(named)
        keys = frame.select(*self._by, **self._named).schema

        def build(lf: pl.LazyFrame) -> pl.LazyFrame:
            return lf.group_by(*self._by, maintain_order=True, **self._named).agg(*held, **so_named)

        lf, schema = frame._planned("agg", build)
        computed = schema.keys() - keys.keys()
        model = model_after("agg", frame.model, frame.schema, schema, computed=computed, names_all=True)
        return frame._next(model, lf, schema)


def _operand(other: object) -> tuple[pl.LazyFrame, pl.Schema, tuple[Sources, ...]]:
    if isinstance(other, Relation):
        return other.plan, other.schema, other._sources
    if not isinstance(other, pl.DataFrame | pl.LazyFrame):
        raise NotAFrame(other, "LazyFrame")
    lazy = other.lazy()
    return lazy, pool.call(lazy.collect_schema), ()


_bound: weakref.WeakValueDictionary[type[BaseModel], type[Relation[Any]]] = weakref.WeakValueDictionary()
