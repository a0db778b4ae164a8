"""A text that is made of others without holding the GIL for its whole length. Python has no other way to make one.

``"".join`` copies all of them in one step. ``text += other`` copies what is there whenever the memory cannot grow in
its place, whenever a wider character comes, and always while a tracer is set. A text that CPython's C interface has
allocated can be filled step by step, as long as there is no reference to it (docs.python.org/3/c-api/unicode.html).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable

__all__ = ("joined",)

_new = ctypes.pythonapi.PyUnicode_New
_new.argtypes, _new.restype = (ctypes.c_ssize_t, ctypes.c_uint32), ctypes.c_void_p
_copy = ctypes.pythonapi.PyUnicode_CopyCharacters
_copy.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.py_object, ctypes.c_ssize_t, ctypes.c_ssize_t)
_copy.restype = ctypes.c_ssize_t
_release = ctypes.pythonapi.Py_DecRef
_release.argtypes, _release.restype = (ctypes.c_void_p,), None


def joined(texts: Iterable[str], length: int, largest: int, pause: Callable[[], object]) -> str:
    r"""Return ``"".join(texts)``, and call *pause* after each of them has been copied.

    Args:
        length: the sum of the lengths of *texts*, which is more than 1.
        largest: 0x7F, 0xFF, 0xFFFF or 0x10FFFF, the least of them that no character of *texts* exceeds.

    Example:
        >>> joined(["gr", "\xfcn"], 4, 0xFF, lambda: None) == "gr\xfcn"
        True
    """
    whole = _new(length, largest)
    try:
        filled = 0
        for text in texts:
            filled += _copy(whole, filled, text, 0, len(text))
            pause()
        assert filled == length
        found: str = ctypes.cast(whole, ctypes.py_object).value
        return found
    finally:
        _release(whole)
