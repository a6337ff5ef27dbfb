"""A lab that is older than its users' certificates lets them in again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hostler.issued import read_file
from hostler.lab.identity import USERS, authority, renew_users


@pytest.mark.parametrize(
    ("days", "renewed"), [(0, []), (4, []), (5, list(USERS)), (30, list(USERS))]
)
def test_users_are_renewed_in_the_last_third_of_their_week(
    tmp_path: Path, days: int, renewed: list[str]
) -> None:
    ca = authority(tmp_path / "pki")
    paths = {user: ca.certificate_path("user", user) for user in USERS}
    before = {user: read_file(path).serial for user, path in paths.items()}
    assert renew_users(ca, datetime.now(UTC) + timedelta(days=days)) == renewed
    changed = [user for user, path in paths.items() if read_file(path).serial != before[user]]
    assert changed == renewed
    assert all(path.with_suffix(".key").exists() for path in paths.values())


def test_a_user_that_was_taken_away_stays_away(tmp_path: Path) -> None:
    ca = authority(tmp_path / "pki")
    ca.certificate_path("user", "viewer").unlink()
    renewed = renew_users(ca, datetime.now(UTC) + timedelta(days=30))
    assert renewed == ["admin", "operator"]
    assert not ca.certificate_path("user", "viewer").exists()
