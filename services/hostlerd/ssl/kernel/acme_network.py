"""The HTTP of an ACME client: patient with nonces, and obedient to Retry-After.

Imported when it is used: `acme` with what it needs takes about 0.15 s.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from acme import client, messages

# A server may refuse a nonce whenever it likes; the library asks again once and then gives up.
NONCES_MOST = 10
_BUSY = (429, 503)


class Network(client.ClientNetwork):
    """Remembers until when the server did not want to be asked: `not_before`, 0 for no time."""

    not_before = 0

    def post(self, *args: Any, **kwargs: Any) -> Any:
        """Post, with as many nonces as it takes. Raises messages.Error."""
        for left in range(NONCES_MOST, 0, -1):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce" or left == 1:
                    raise
        raise AssertionError("it was posted or refused")

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        response = super()._send_request(method, url, *args, **kwargs)
        if response.status_code in _BUSY:
            self.not_before = int(time()) + seconds(response.headers.get("Retry-After"))
        return response


def seconds(retry_after: str | None, default: int = 3600) -> int:
    """Answer in how many seconds a server may be asked again. RFC 9110, 10.2.3."""
    if not retry_after:
        return default
    if retry_after.isascii() and retry_after.isdigit():
        return min(int(retry_after), 30 * 24 * 3600)
    try:
        at = parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, TypeError):
        return default
    return max(0, int(at - time()))
