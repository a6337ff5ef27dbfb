"""What can be asked of a host by ssh: how it is, and its half of an enrolment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostler.core.joining import check_request
from hostler.core.ssl.authority.request import RequestInvalid
from hostler.enrolment import scripts
from hostler.enrolment.errors import EnrolmentError
from hostler.enrolment.seen import Seen, parse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from hostler.enrolment.ssh import Ssh

LOOK_S, JOIN_S = 60.0, 180.0
#: How what is done is told while it goes on, line by line.
Say = Callable[[str], None]
AGAIN = "give the same command again: it goes on where it stopped"


@dataclass(frozen=True, slots=True)
class There:
    """A host under its name, and the way to it."""

    name: str
    ssh: Ssh

    async def look(self) -> Seen:
        """Look at the host. Changes nothing. Raises EnrolmentError."""
        answer = await self.ssh.run(scripts.SHELL, scripts.LOOK.encode(), timeout_s=LOOK_S)
        if answer.status == 0:
            return parse(answer.out)
        words = answer.err.splitlines()[-1] if answer.err else f"status {answer.status}"
        if "sudo" in words:
            advice = "permit that user to run everything without a password, or log in as root"
            raise EnrolmentError("NOT_ROOT", f"sudo on the host: {words}", advice)
        raise EnrolmentError("ODD_ANSWER", f"the look at the host failed: {words}", AGAIN)

    async def join(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have one request done; see `hostlerd.joining`. Raises EnrolmentError."""
        data = json.dumps(request).encode()
        answer = await self.ssh.run(scripts.JOIN, data, timeout_s=JOIN_S)
        try:
            told: dict[str, Any] = json.loads(answer.out)
            refused = told.get("error")
        except (ValueError, AttributeError) as e:
            words = answer.err or answer.out[-200:].decode(errors="replace") or "nothing"
            words = f"{self.name} answered to {request['do']!r}: {words}"
            raise EnrolmentError("ODD_ANSWER", words, AGAIN) from e
        if refused:
            words = f"{self.name}: {refused.get('message')}"
            raise EnrolmentError(str(refused.get("reason")), words, AGAIN)
        return told


def key_of(told: dict[str, Any], name: str, token: str) -> ec.EllipticCurvePublicKey:
    """The key of the request that a host has answered with. Raises EnrolmentError."""
    try:
        return check_request(str(told.get("request", "")).encode(), name, token)
    except RequestInvalid as e:
        words = f"the request of {name} {e}"
        raise EnrolmentError("REQUEST_INVALID", words, AGAIN) from e
