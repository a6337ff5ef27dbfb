"""What a tool says when it fails is told where people look: in the message, too."""

from __future__ import annotations

import pytest

from hostlerd.storage.worker.tools import Answer, failed


@pytest.mark.parametrize(
    ("output", "errors", "told"),
    [
        ("", "", "mdadm ended with status 1"),
        ("", "mdadm: /dev/vdb: busy\n", "mdadm ended with status 1: mdadm: /dev/vdb: busy"),
        ("first\nlast\n", "\n", "mdadm ended with status 1: last"),
        ("not this", "x" * 5000, f"mdadm ended with status 1: {'x' * 300}"),
    ],
)
def test_the_last_line_is_in_the_message_and_all_in_the_details(
    output: str, errors: str, told: str
) -> None:
    refusal = failed(["/sbin/mdadm", "--manage"], Answer(1, output, errors))
    assert (refusal.reason, refusal.message) == ("TOOL_FAILED", told)
    assert (errors.strip() or output.strip()).endswith(refusal.metadata["stderr"])
