"""The writer of collected packet logs: answers that are lost, and records that come twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from client_packets import made_records
from packets_world import a_store, asked, stored, whole
from postgresql import cluster, programs

from hostler.packet_retention import Retention
from hostler.packet_store import PacketStore, PacketStoreError, Portion, open_packets
from hostler.packet_writer import Batch, PacketWriter
from hostler.packets import FOLLOW

# On a machine with other work to do.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with cluster() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return a_store(request, tmp_path)


class LosesAnswers(PacketStore):
    """A store whose connection breaks every second time, after COMMIT or before it."""

    calls = 0

    def write(self, portions: Sequence[Portion]) -> None:
        self.calls += 1
        if self.calls % 4 == 0:
            raise PacketStoreError("broken before COMMIT")
        super().write(portions)
        if self.calls % 4 == 2:
            raise PacketStoreError("broken after COMMIT")


def test_a_lost_answer_to_commit_stores_nothing_twice(url: str) -> None:
    told: list[str] = []
    records = made_records(2000, 3)
    with open_packets(url) as store:
        broken = LosesAnswers(store.engine, store.place)
        writer = PacketWriter(broken, Retention(), told.append)
        writer.start()
        for at in range(0, 2000, 100):
            part = records[at : at + 100]
            answer = FOLLOW.response_type(reader="r", records=part, seq=part[-1].seq, lost=1)
            writer.offer(Batch("h", answer))
            wait_s = time.monotonic() + 20
            while writer.totals.stored < at + 100 and time.monotonic() < wait_s:
                assert writer.is_alive(), writer.failure
                time.sleep(0.01)
        assert writer.end(30)
        assert writer.failure is None
    assert any("after COMMIT" in words for words in told)
    assert any("before COMMIT" in words for words in told)
    assert stored(url) == writer.totals.stored == 2000
    assert asked(url, "SELECT last_seq, stored, lost FROM packet_readers") == [(2000, 2000, 20)]
    assert asked(url, "SELECT count(*), sum(lost) FROM packet_gaps") == [(20, 20)]


def test_what_comes_twice_or_late_is_stored_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/packets.sqlite"
    records = made_records(30, 3)
    with open_packets(url) as store:
        writer = PacketWriter(store, Retention(), print)
        writer.start()
        for part in (records[:20], records[10:25], records[5:6], records[20:]):
            answer = FOLLOW.response_type(reader="r", records=part, seq=part[-1].seq)
            writer.offer(Batch("h", answer))
        # Losses at the socket are told with no record, and at the same number.
        writer.offer(Batch("h", FOLLOW.response_type(reader="r", seq=30, lost=4, lost_at_socket=4)))
        # It were three, and none of them is known only by the socket's count any more.
        back = FOLLOW.response_type(reader="r", seq=32, lost=-1, lost_at_socket=-4)
        writer.offer(Batch("h", back))
        writer.offer(Batch("h", FOLLOW.response_type(reader="r", seq=33, lost_at_socket=2)))
        assert writer.end(30)
    assert [row[2] for row in whole(url)] == list(range(1, 31))
    assert asked(url, "SELECT last_seq, lost, lost_at_socket FROM packet_readers") == [(33, 3, 2)]
    gaps = asked(url, "SELECT after_seq, until_seq, lost, lost_at_socket FROM packet_gaps")
    assert gaps == [(30, 30, 4, 4), (30, 32, -1, -4), (32, 33, 0, 2)]
