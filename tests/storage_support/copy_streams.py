"""Streams of files as lists of parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hostler.core.copying.parts import Data, Have, Part
from hostler.core.copying.place import place_of
from hostler.core.copying.receive import receive
from hostler.core.copying.send import send

MARK = b"one"


def parts_of(path: Path, have: Have = Have()) -> list[Part]:  # noqa: B008
    found: list[Part] = []

    def emit(part: Part) -> None:
        found.append(replace(part, data=bytes(part.data)) if isinstance(part, Data) else part)

    with place_of(path) as place:
        send(place, have, emit)
    return found


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def take(target: Path, begun: Callable[[Have], Iterable[Part]], **more: Any) -> Any:
    with place_of(target) as place:
        return receive(place, MARK, begun, **more)
