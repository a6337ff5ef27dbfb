"""What a lab remembers between two calls of the command, in `lab.json` of its folder."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hostler.core import files
from hostler.lab.errors import LabError

NAME = "lab.json"


@dataclass(frozen=True, slots=True)
class State:
    """A lab as `up` made it: its number on this machine, its hosts' count, their root."""

    number: int
    hosts: int
    base: Path


def load(folder: Path) -> State | None:
    """The state of the lab in `folder`, None if there is none. Raises LabError if damaged."""
    try:
        document = json.loads((folder / NAME).read_text())
        return State(int(document["number"]), int(document["hosts"]), Path(document["base"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise LabError(f"{folder / NAME} is damaged: {e}") from e


def save(folder: Path, state: State) -> None:
    """Write the state, whole or not at all."""
    document = asdict(state) | {"base": str(state.base)}
    files.replace(folder / NAME, (json.dumps(document, indent=2) + "\n").encode(), mode=0o644)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lab's folder: one change of a lab at a time, others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
