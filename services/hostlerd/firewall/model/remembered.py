"""What was made of frozen values, remembered by which values they were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock


class Remembered:
    """The last few texts by the very objects they were made of: to compare a large one is slow.

    It holds the objects, so that none of their identities is given to another.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._texts: OrderedDict[tuple[int, ...], tuple[tuple[object, ...], str]] = OrderedDict()
        self._lock = Lock()

    def get(self, made_of: Sequence[object], make: Callable[[], str]) -> str:
        """Answer the text made of these frozen objects, making it if it is not remembered."""
        key = tuple(map(id, made_of))
        with self._lock:
            found = self._texts.get(key)
        if found is not None:
            return found[1]
        text = make()
        with self._lock:
            self._texts[key] = tuple(made_of), text
            while len(self._texts) > self._most:
                self._texts.popitem(last=False)
        return text

    def made_of(self, text: str) -> tuple[object, ...]:
        """Answer the objects that a text was made of; none if that is not remembered."""
        with self._lock:
            known = list(self._texts.values())
        return next((objects for objects, made in known if made == text), ())
