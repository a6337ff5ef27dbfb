"""The state of a fleet for an OpenTelemetry collector: OTLP over HTTP, encoded as JSON.

Source: https://opentelemetry.io/docs/specs/otlp/ and the data model of metrics.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from hostler.board.metrics import Family

_PATH = "/v1/metrics"
_TIMEOUT_S = 10.0
_MOST_ANSWER_BYTES = 64 << 10
_CUMULATIVE = 2


class ExportFailed(Exception):
    """What was sent did not arrive, or was not taken, in words."""


def request(families: Iterable[Family], at_unix_ns: int) -> bytes:
    """Make an ExportMetricsServiceRequest of samples of one moment."""
    scope = {"scope": {"name": "hostler"}, "metrics": [_metric(f, at_unix_ns) for f in families]}
    resource = {"attributes": _attributes({"service.name": "hostler"})}
    return json.dumps(
        {"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope]}]}
    ).encode()


def _metric(family: Family, at_unix_ns: int) -> dict[str, Any]:
    points = [
        {"attributes": _attributes(labels), "timeUnixNano": str(at_unix_ns), "asDouble": value}
        for labels, value in family.samples
    ]
    told: dict[str, Any] = {"name": family.name, "description": family.words}
    if family.kind == "counter":
        told["sum"] = {
            "dataPoints": points, "aggregationTemporality": _CUMULATIVE, "isMonotonic": True,
        }  # fmt: skip
    else:
        told["gauge"] = {"dataPoints": points}
    return told


def _attributes(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": words}} for key, words in labels.items()]


def collector(url: str) -> SplitResult:
    """The place of a collector, by its URL. Raises ValueError."""
    place = urlsplit(url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise ValueError(f"{url!r} is not http://HOST[:PORT] or https://HOST[:PORT]")
    if place.username or place.query or place.fragment:
        raise ValueError(f"{url!r} has more than scheme, host, port and path")
    _ = place.port
    return place


def export(body: bytes, place: SplitResult) -> None:
    """Send a request; returns when the collector has said that it took all. Raises ExportFailed.

    Unless the URL says otherwise, ports are 4318 without TLS and 443 with it, and the path is
    /v1/metrics. Redirects are not followed.
    """
    host = place.hostname or ""
    connection: http.client.HTTPConnection
    if place.scheme == "https":
        connection = http.client.HTTPSConnection(host, place.port or 443, timeout=_TIMEOUT_S)
    else:
        connection = http.client.HTTPConnection(host, place.port or 4318, timeout=_TIMEOUT_S)
    path = place.path.rstrip("/") or _PATH
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read(_MOST_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise ExportFailed(f"{place.geturl()}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise ExportFailed(f"{place.geturl()}: the collector answers {response.status}")
    rejected, why = _rejected(answer)
    if rejected:
        raise ExportFailed(
            f"{place.geturl()}: the collector took all but {rejected} samples: {why}"
        )


def _rejected(answer: bytes) -> tuple[int, str]:
    """How many samples the collector says it did not take, and why."""
    try:
        told = json.loads(answer or b"{}").get("partialSuccess", {})
        return int(told.get("rejectedDataPoints", 0)), str(told.get("errorMessage", ""))
    except (ValueError, AttributeError, TypeError):
        return 0, ""
