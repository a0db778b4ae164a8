"""Progress bars, drawn from the hub. Needs the extra ``progress`` (tqdm)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from greendata.pipelines.element import Item, Placeholder

__all__ = ("bar_class", "with_progress_bar")


def with_progress_bar(items: Iterable[Item], label: str, total: int | None) -> Iterator[Item]:
    """Yield *items*, and show on a bar how many have passed.

    Args:
        label: the text in front of the bar.
        total: the number of items, or None if it is not known.

    Raises:
        ImportError: tqdm is not installed.
    """
    with bar_class()(desc=label, total=total) as bar:
        for item in items:
            yield item
            if not isinstance(item[1], Placeholder):
                bar.update()


def bar_class() -> type[Any]:
    """Return a tqdm class that starts no monitoring thread.

    Raises:
        ImportError: tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError as missing:
        raise ImportError("progress= needs tqdm; install it with: pip install 'greendata[progress]'") from missing

    class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]  # Any without its stubs, generic with them
        monitor_interval = 0  # seconds; 0 disables the thread that would wake ten times a minute until the process ends

    return Bar
