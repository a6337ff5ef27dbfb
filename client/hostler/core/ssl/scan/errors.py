"""What can be wrong with an endpoint, or with one conversation with it."""

from __future__ import annotations

from typing import ClassVar


class ScanError(Exception):
    """A conversation came to nothing. `code` is for programs, the message for people."""

    code: ClassVar[str] = "FAILED"


class Unreachable(ScanError):
    """No connection could be made."""

    code = "UNREACHABLE"


class TimedOut(ScanError):
    """The peer did not say enough in time: it hangs, or drips bytes."""

    code = "TIMED_OUT"


class NotTls(ScanError):
    """The peer speaks, but no TLS."""

    code = "NOT_TLS"


class Malformed(ScanError):
    """A message of the peer contradicts the protocol."""

    code = "MALFORMED"


class TooMuch(ScanError):
    """The peer sends more than anybody needs."""

    code = "TOO_MUCH"


class ClosedEarly(ScanError):
    """The peer closed the connection before it had answered."""

    code = "CLOSED"


class Refused(ScanError):
    """The peer refused a handshake by an alert."""

    code = "REFUSED"


class StartTlsRefused(ScanError):
    """The peer does not go over to TLS in its protocol."""

    code = "STARTTLS_REFUSED"


class Unsupported(ScanError):
    """The peer wants something in a full handshake that this prober does not know."""

    code = "UNSUPPORTED"


class GivenUp(ScanError):
    """The scan's deadline, or its budget of connections, is used up."""

    code = "GIVEN_UP"
