"""Where files with certificates and keys lie, in words."""

from __future__ import annotations

from typing import Protocol


class Place(Protocol):
    """A file of a host, or of a container on it: FilePlace, or what has its fields."""

    path: str
    container: str


def place_words(place: Place) -> str:
    """The path, behind the container that has it."""
    return f"{place.container}:{place.path}" if place.container else place.path
