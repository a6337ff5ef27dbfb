"""`hostler -H HOSTS ssl scan`: endpoints as hosts see them, each scanned from each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from hostler.api.ssl.v1 import scan_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State
from hostler.cli.output import Table

if TYPE_CHECKING:
    from hostler.core.ssl.scan.connect import Endpoint
    from hostler.session import Session

_SCAN = rpc(pb, "ScanService", "ScanEndpoints")
_TITLES = ("ENDPOINT", "NAME", "GRADE", "TRUST ASIDE", "VERSIONS", "WHY")


def scan_from_hosts(
    state: State, found: Sequence[Endpoint], name: str, starttls: str, checks: Sequence[str]
) -> NoReturn:
    """Have the selected hosts scan, show what they found, and leave with the exit status."""
    request = pb.ScanEndpointsRequest(
        addresses=[str(each) for each in found], name=name, starttls=starttls, checks=checks
    )

    async def scanned(session: Session) -> list[Any]:
        answers = [answer async for answer in session.stream(_SCAN, request)]
        order = {address: place for place, address in enumerate(request.addresses)}
        return sorted(answers, key=lambda answer: order[answer.address])

    results = state.run(state.client.each(state.hosts, scanned, tolerance=state.tolerance))
    state.finish(results, Table(_TITLES, _rows))


def _rows(answers: Iterable[Any]) -> Iterator[Sequence[Any]]:
    for answer in answers:
        result = answer.result
        if result.HasField("failure"):
            why = f"{result.failure.code}: {result.failure.message}"
            yield answer.address, result.name or "-", "-", "-", "-", why
            continue
        yield (
            answer.address,
            result.name or "-",
            result.grade.letter or "-",
            result.grade.ignoring_trust or "-",
            " ".join(each.version for each in result.protocols if each.accepted),
            " ".join(reason.code for reason in result.grade.reasons),
        )
