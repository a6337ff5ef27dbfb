"""Models of the ssl domain as messages."""

from __future__ import annotations

from hostler.api.common.v1 import change_pb2
from hostlerd.ssl.model.library import Unseen


def warning(of: Unseen) -> change_pb2.Warning:
    """What could not be seen."""
    return change_pb2.Warning(code=of.code, message=of.message, subject=text(of.subject))


def text(of: str) -> str:
    """A path as a message can carry it: what is no UTF-8 is shown as bytes."""
    return of.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
