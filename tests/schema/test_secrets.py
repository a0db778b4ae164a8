"""Secrets in models: a column holds them without showing them, no file takes them, and no message has them."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

import greendata
from greendata import Frame
from greendata.errors import FrameInvalid, GreenDataError, NoColumnForm, NotWritable, PlanRefused
from greendata.formats.format import FORMATS
from greendata.schema.failures import HIDDEN

SHORT = "hunt"  # rejected, because it is too short
PASSWORD = "hunter2"


class User(BaseModel):
    id: int
    password: SecretStr = Field(min_length=5)


class PlainUser(BaseModel):
    id: int
    password: Annotated[SecretStr, Field(min_length=5), pl.String]


class Account(BaseModel):
    user: PlainUser


class Aliased(BaseModel):
    id: int = 0
    password: SecretStr = Field(min_length=5, alias="pass word")


class Hidden(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)
    password: int


class Nested(BaseModel):
    hidden: Hidden | int


ROWS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (User, {"id": 1, "password": SHORT}),
    (PlainUser, {"id": 1, "password": SHORT}),
    (Account, {"user": {"id": 1, "password": SHORT}}),
    (Aliased, {"pass word": SHORT}),
    (Hidden, {"password": SHORT}),
    (Nested, {"hidden": {"password": SHORT}}),
]


def test_a_column_holds_secrets_that_it_does_not_show() -> None:
    users = Frame[User].from_rows([{"id": 1, "password": PASSWORD}, User(id=2, password=SecretStr("passphrase"))])
    df = users.to_frame()
    assert df.schema == {"id": pl.Int64(), "password": pl.Object()} == greendata.schema_of(User)
    assert PASSWORD not in f"{users!r}{users.plan}{df}{df.glimpse(return_type='string')}{users.to_dict()}"
    found = users.filter(pl.col("id") == 1).sort("id").join(pl.DataFrame({"id": [1], "age": [41]}), on="id").collect()
    assert [row.password for row in found] == [SecretStr(PASSWORD)]  # type: ignore[attr-defined]
    assert greendata.to_models(df, User) == users.collect()
    with users.stream(batch_size=1) as stream:
        assert [model for batch in stream.models() for model in batch] == users.collect()


def test_operations_that_compare_secrets_are_refused() -> None:
    users = Frame[User].from_rows([{"id": 1, "password": PASSWORD}])
    for refused in (
        users.unique,
        lambda: users.unique("password"),
        lambda: users.join(users, on="password"),
        lambda: users.join(users, on=["id", "password"]),
    ):
        with pytest.raises(PlanRefused, match="cannot compare the secrets of 'password'; name other columns"):
            refused()
    with pytest.raises(PlanRefused, match="does not support sorting"):
        users.sort("password")
    assert len(users.unique("id").collect()) == len(users.join(users.drop("password"), on="id").collect()) == 1
    with pytest.raises(NoColumnForm, match="keep its name and its rows, or drop"):
        users.rename({"password": "key"})


def test_secrets_from_files_and_bodies_stay_secret() -> None:
    for format in ("json", "ndjson", "csv", "parquet", "arrow"):
        body = b"".join(greendata.encode(pl.DataFrame({"id": [1], "password": [PASSWORD]}), format))  # type: ignore[arg-type]
        df = greendata.decode(body, format, model=User)  # type: ignore[arg-type]
        assert df["password"].to_list() == [SecretStr(PASSWORD)]


def test_no_file_takes_a_secret(tmp_path: Path) -> None:
    users = Frame[User].from_rows([{"id": 1, "password": PASSWORD}])
    hint = r"password \(Object\); drop it, or store a secret in plain text: Annotated\[SecretStr, polars.String\]"
    for kind in ("parquet", "csv", "ipc", "ndjson"):
        with pytest.raises(NotWritable, match=hint):
            getattr(users, f"write_{kind}")(tmp_path / "users")
    for format in FORMATS:
        with pytest.raises(NotWritable, match=hint):
            b"".join(greendata.encode(users.to_frame(), format))
    with (
        closing(sqlite3.connect(tmp_path / "users.db")),
        pytest.raises(GreenDataError, match=r"'password' \(Object\); cast or drop it before the write"),
    ):
        greendata.write_sql(users.to_frame(), "users", f"sqlite:///{tmp_path}/users.db").get()
    assert not (tmp_path / "users").exists()


def test_a_secret_that_is_asked_for_is_stored_in_plain_text(tmp_path: Path) -> None:
    users = Frame[PlainUser].from_rows([{"id": 1, "password": PASSWORD}])
    users.write_parquet(tmp_path / "users.parquet")
    assert pl.read_parquet(tmp_path / "users.parquet")["password"].to_list() == [PASSWORD]
    assert Frame[PlainUser].scan_parquet(tmp_path / "users.parquet").collect() == users.collect()


@pytest.mark.parametrize(("model", "row"), ROWS, ids=lambda case: getattr(case, "__name__", ""))
def test_no_message_has_a_secret(model: type[BaseModel], row: dict[str, Any]) -> None:
    df = pl.DataFrame([row])
    body = b"".join(greendata.encode(df, "json"))
    calls: list[Callable[[], Any]] = [
        lambda: greendata.validate(df, model),
        lambda: greendata.decode(body, "json", model=model),
        lambda: Frame[model].from_rows([row]),  # type: ignore[valid-type]
        lambda: Frame[model].from_frame(df).collect(),  # type: ignore[valid-type]
        lambda: Frame[model].from_frame(df).to_frame(),  # type: ignore[valid-type]
    ]
    for call in calls:
        with pytest.raises(FrameInvalid) as caught:
            call()
        assert SHORT not in str(caught.value) + str(caught.value.failures.to_dicts())
        assert caught.value.failures["value"].unique().to_list() == [HIDDEN]
        assert is_hidden(caught.value)
    with pytest.raises(ValidationError) as refused:
        greendata.to_models(df, model)
    assert is_hidden(refused.value)
    assert greendata.filter_valid(pl.concat([df] * 1000), model).failures["value"].unique().to_list() == [HIDDEN]


def is_hidden(error: BaseException) -> bool:
    """Return True if no error in the chain has the secret in its text. Tracebacks have the test's own lines."""
    return SHORT not in "".join(
        line for line in traceback.format_exception(error) if not line.lstrip().startswith("File ")
    )


def test_an_invalid_row_that_holds_a_secret_is_not_shown() -> None:
    class Strict(User):
        model_config = ConfigDict(extra="forbid")

    df = pl.DataFrame({"id": [1], "password": [PASSWORD], "more": [1]})
    failures = greendata.filter_valid(df, Strict).failures
    assert failures.select("column", "value", "rule").rows() == [("more", None, "extra_forbidden")]
    with pytest.raises(FrameInvalid) as caught:
        Frame[User].from_rows([PASSWORD])  # type: ignore[list-item]
    assert PASSWORD not in str(caught.value)


def test_a_secret_that_does_not_fit_its_column_is_not_shown() -> None:
    class Choice(BaseModel):
        key: Annotated[SecretStr, pl.Enum(["a"])]

    with pytest.raises(FrameInvalid, match="SecretStr does not come back from Enum") as caught:
        Frame[Choice].from_rows([{"key": PASSWORD}])
    assert PASSWORD not in str(caught.value) + str(caught.value.failures.to_dicts())


def test_a_secret_can_be_a_default() -> None:
    class WithDefault(BaseModel):
        id: int
        key: SecretStr = SecretStr(PASSWORD)
        other: SecretStr | None = None

    df = greendata.validate(pl.DataFrame({"id": [1, 2]}), WithDefault)
    assert df.rows() == [(1, SecretStr(PASSWORD), None), (2, SecretStr(PASSWORD), None)]
