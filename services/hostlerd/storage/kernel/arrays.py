"""The arrays that mdadm.conf(5) names."""

from __future__ import annotations

from pathlib import Path

from hostlerd.storage.model.observed import ConfiguredArray
from hostlerd.storage.worker.sysfs import text

_PLACES = (Path("/etc/mdadm/mdadm.conf"), Path("/etc/mdadm.conf"))


def configured() -> tuple[ConfiguredArray, ...]:
    """The lines ARRAY of the first file that is there."""
    return parse(next(filter(None, map(text, _PLACES)), ""))


def parse(said: str) -> tuple[ConfiguredArray, ...]:
    """Read mdadm.conf: a line that begins with space goes on with the one before it."""
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(said.splitlines(), 1):
        words = line.partition("#")[0].split()
        if line[:1].isspace() and found:
            found[-1][1].extend(words)
        elif words:
            found.append((number, words))
    arrays = []
    for number, words in found:
        # mdadm takes three letters of a keyword, in either case.
        if not words[0].lower().startswith("arr"):
            continue
        name = next((word for word in words[1:] if "=" not in word), "")
        said_of = dict(word.lower().split("=", 1) for word in words[1:] if "=" in word)
        if uuid := said_of.get("uuid", ""):
            arrays.append(ConfiguredArray(number, name, uuid))
    return tuple(arrays)
