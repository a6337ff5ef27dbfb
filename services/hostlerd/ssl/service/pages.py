"""Pages of lists: a token is the place after which to go on, and what list it is of."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from hostlerd.runtime.errors import InvalidRequest, Violation

T = TypeVar("T")
_TOKEN_CHARS = 600


def checked(page_size: int, page_token: str, default: int, most: int) -> tuple[int, str]:
    """Size of the page, and the key after which it begins. Raises InvalidRequest."""
    faults = []
    if page_size < 0:
        faults.append(Violation("page_size", "must not be negative"))
    after = ""
    try:
        if len(page_token) > _TOKEN_CHARS:
            raise ValueError
        after = base64.urlsafe_b64decode(page_token.encode("ascii")).decode()
    except (ValueError, binascii.Error):
        faults.append(Violation("page_token", "is not a token of this list"))
    if faults:
        raise InvalidRequest.of(faults)
    return min(page_size or default, most), after


def page(
    ordered: Sequence[T], key: Callable[[T], str], after: str, size: int
) -> tuple[Sequence[T], str]:
    """The things of one page, of a list ordered by key, and the token of the next; "" at the end.

    What comes or goes between two pages makes none of the others appear twice or never.
    """
    rest = [each for each in ordered if not after or key(each) > after]
    if len(rest) <= size:
        return rest, ""
    token = base64.urlsafe_b64encode(key(rest[size - 1]).encode()).decode("ascii")
    return rest[:size], token
