"""The machine's limit that hosts share is raised, never lowered, and only told when it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.lab.room import ENOUGH, make_room


@pytest.mark.parametrize(
    ("there", "after", "told"), [(128, ENOUGH, 1), (ENOUGH, ENOUGH, 0), (65536, 65536, 0)]
)
def test_room(tmp_path: Path, there: int, after: int, told: int) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text(f"{there}\n")
    said: list[str] = []
    make_room(said.append, limit)
    assert int(limit.read_text()) == after
    assert len(said) == told
