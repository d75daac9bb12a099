"""Let one public call run at a time, from whichever threads they come.

torch.export and ``sys.modules`` belong to the whole process: two conversions side by side would
each see the other's. Those of the same thread may be within one another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_Result = TypeVar("_Result")

_lock = threading.RLock()


def exclusive(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
    """Decorate a function that waits until no other thread is in one that is decorated so."""

    @wraps(function)
    def waiting(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
        with _lock:
            return function(*args, **kwargs)

    return waiting
