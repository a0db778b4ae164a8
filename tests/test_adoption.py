"""Who is told of a result that is submitted in the block of a group that adopts, and in blocks within blocks."""

from __future__ import annotations

from typing import Any

import pytest

import greendata
from greendata.hub.job import adopter


def test_a_request_around_is_told_and_a_group_around_is_not() -> None:
    told: list[Any] = []
    token = adopter.set(told.append)
    try:
        with greendata.Group(adopt=True), greendata.Group(adopt=True, on_error="collect", label="inner") as inner:
            results = [greendata.run(int), inner.run(int), inner.spawn(int)]
        assert adopter.get() == told.append
    finally:
        adopter.reset(token)
    assert set(results) <= set(told)


def test_a_failure_that_is_dealt_with_inside_is_none_of_the_group_around() -> None:
    with greendata.Group(adopt=True) as outer:
        with pytest.raises(ExceptionGroup, match="inner: 1 failure"), greendata.Group(adopt=True, label="inner"):
            greendata.run(int, "x")
        assert greendata.run(int).get() == 0
    assert outer.pending == ()
