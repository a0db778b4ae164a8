"""The probe of the hub's lag."""

from __future__ import annotations

import time

import gevent
import pytest

from greendata.errors import BadArgument
from greendata.observe import LagProbe, watch_lag
from greendata.observe.lag import SAMPLES
from tests.conftest import run_python
from tests.support.natives import until


def keep_hub(seconds: float) -> None:
    """Compute on the hub's thread for *seconds*."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(100))


def test_a_blocked_hub_shows_as_lag() -> None:
    with watch_lag(0.01) as probe:
        until(probe.samples)
        keep_hub(0.2)
        until(lambda: probe.worst(60.0) >= 0.2 - 0.02)
    assert probe.worst(60.0) == max(probe.samples())


def test_samples_are_bounded() -> None:
    probe = LagProbe(0.01)
    probe.start()
    for _ in range(SAMPLES + 5):
        probe._tick()
    assert len(probe.samples()) == SAMPLES
    probe.close()


def test_lag_is_counted_from_the_last_tick_and_never_negative() -> None:
    with watch_lag(0.05) as probe:
        until(lambda: len(probe.samples()) > 3)
    assert min(probe.samples()) >= 0.0


def test_worst_covers_the_given_seconds_only() -> None:
    with watch_lag(0.05) as probe:
        probe._samples.extend([3.0, 0.001, 0.002])
        assert probe.worst(0.1) == 0.002
        assert probe.worst(60.0) == 3.0
        assert probe.last == 0.002
    assert LagProbe().worst(1.0) == LagProbe().last == 0.0


def test_each_tick_is_reported_until_the_callback_is_removed() -> None:
    lags: list[float] = []
    with watch_lag(0.01) as probe:
        probe.on_tick(lags.append)
        until(lambda: len(lags) > 1)
        probe.off_tick(lags.append)
        count, samples = len(lags), len(probe.samples())
        until(lambda: len(probe.samples()) > samples)
    assert len(lags) == count


def test_closing_twice_is_fine_and_starting_twice_is_one_timer() -> None:
    probe = watch_lag()
    probe.start()
    assert probe.is_on
    assert "on, last" in repr(probe)
    probe.close()
    probe.close()
    assert not probe.is_on
    assert "off, last" in repr(probe)


@pytest.mark.parametrize("interval", [0, 0.009, 0.051, float("nan"), True, "fast"])
def test_an_interval_out_of_bounds_is_refused(interval: float) -> None:
    with pytest.raises(BadArgument, match="interval must be a number of seconds from "):
        watch_lag(interval)


def test_it_does_not_keep_the_process() -> None:
    finished = run_python("import gevent, greendata; probe = greendata.observe.watch_lag(); print(gevent.wait())")
    assert (finished.returncode, finished.stdout) == (0, "True\n"), finished.stderr


def test_it_measures_the_hub_of_its_thread() -> None:
    with watch_lag() as probe:
        assert probe.hub is gevent.get_hub()
