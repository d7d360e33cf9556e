"""What depends on a complex alone, made once for all of its samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

Key = TypeVar("Key")
Value = TypeVar("Value")


def weak_cache(function: Callable[[Key], Value]) -> Callable[[Key], Value]:
    """`functools.cache` for a function of one object, which is told from others by identity and
    not kept alive: the result must not refer to it.

    Threads that ask at the same time may each compute the result.
    """
    results: WeakKeyDictionary[Key, Value] = WeakKeyDictionary()

    @wraps(function)
    def cached(key: Key) -> Value:
        if key not in results:
            results[key] = function(key)
        return results[key]

    return cached
