"""Audit records as OpenTelemetry logs: OTLP over HTTP, encoded as JSON.

Source: https://opentelemetry.io/docs/specs/otlp/ and the logs' data model.
"""

from __future__ import annotations

import errno
import http.client
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult

from hostler.core.audit import Record
from hostlerd.runtime.audit_syslog import Source

_TIMEOUT_S = 10.0
_PATH = "/v1/logs"
_INFO, _WARN = 9, 13  # SeverityNumber.
_MOST_ANSWER_BYTES = 64 << 10
_FIELDS = ("kind", "identity", "method", "status", "reason", "run", "hash")


def request(records: Sequence[tuple[Record, bytes]], source: Source) -> bytes:
    """Make an ExportLogsServiceRequest."""
    resource = {"service.name": f"hostler-{source.domain}", "host.name": source.hostname}
    scope = {"name": "hostler.audit"}
    made = [_log_record(record, line) for record, line in records]
    logs = {"scope": scope, "logRecords": made}
    return json.dumps(
        {"resourceLogs": [{"resource": {"attributes": _pairs(resource)}, "scopeLogs": [logs]}]}
    ).encode()


def _log_record(record: Record, line: bytes) -> dict[str, Any]:
    bad = record.get("status", "OK") not in ("OK", "") or record.get("kind") == "degraded"
    told = {f"hostler.{name}": str(value) for name in _FIELDS if (value := record.get(name))}
    return {
        "timeUnixNano": str(_nanoseconds(record)),
        "severityNumber": _WARN if bad else _INFO,
        "severityText": "WARN" if bad else "INFO",
        "body": {"stringValue": line.decode(errors="replace").rstrip("\n")},
        "attributes": [
            *_pairs(told),
            {"key": "hostler.seq", "value": {"intValue": str(record["seq"])}},
        ],
    }


def _pairs(told: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in told.items()]


def _nanoseconds(record: Record) -> int:
    try:
        moment = datetime.fromisoformat(str(record.get("time")))
        return int(moment.timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        return 0


class Otlp:
    """A collector, reached by plain HTTP."""

    def __init__(self, url: SplitResult, source: Source) -> None:
        self._host, self._port = url.hostname or "", url.port or 4318
        self._path = url.path.rstrip("/") or _PATH
        self._source = source
        self._connection: http.client.HTTPConnection | None = None

    def send(self, records: Sequence[tuple[Record, bytes]]) -> None:
        """Send records. Returns when the collector has said that it took them. Raises OSError."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                self._host, self._port, timeout=_TIMEOUT_S
            )
        headers = {"Content-Type": "application/json"}
        try:
            body = request(records, self._source)
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            told = response.read(_MOST_ANSWER_BYTES)
        except http.client.HTTPException as e:
            raise OSError(errno.EPROTO, f"not the answer of a collector: {e!r}") from e
        if response.status != http.client.OK:
            raise OSError(errno.EPROTO, f"the collector answers {response.status}")
        rejected = _rejected(told)
        if rejected:
            raise OSError(errno.EPROTO, f"the collector has rejected {rejected} records")

    @property
    def settle_s(self) -> float:
        """The collector's answer is its word."""
        return 0.0

    def check(self) -> None:
        """Nothing to look at between two requests."""

    def close(self) -> None:
        """Close the connection; the next `send` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _rejected(told: bytes) -> int:
    """How many records the collector says it did not take."""
    try:
        return int(json.loads(told or b"{}").get("partialSuccess", {}).get("rejectedLogRecords", 0))
    except (ValueError, AttributeError, TypeError):
        return 0
