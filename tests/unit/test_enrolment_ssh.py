"""The way by ssh: its arguments, and what its failures are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.enrolment import scripts
from hostler.enrolment.errors import EnrolmentError
from hostler.enrolment.ssh import SSH, SUDO, Ssh, failure


def test_the_key_of_a_host_is_never_taken_and_nobody_is_asked() -> None:
    argv = Ssh("192.0.2.1", "root", 2222, Path("/k"), Path("/c")).argv(scripts.JOIN)
    assert argv[0] == SSH
    assert argv[argv.index("StrictHostKeyChecking=yes") - 1] == "-o"
    assert "BatchMode=yes" in argv
    assert argv[argv.index("-F") : argv.index("-F") + 2] == ["-F", "/c"]
    assert argv[-6:] == ["2222", "-l", "root", "--", "192.0.2.1", scripts.JOIN]
    assert Ssh("h", "debian", sudo=True).argv("x")[-1] == SUDO + "x"


@pytest.mark.parametrize("address", ["-oProxyCommand=id", "", "a b", "a;b", "$(id)", "a\nb", "é"])
def test_what_ssh_or_a_shell_could_misread_is_refused(address: str) -> None:
    with pytest.raises(EnrolmentError, match="BAD_ADDRESS"):
        Ssh(address).argv(scripts.JOIN)
    with pytest.raises(EnrolmentError, match="BAD_ADDRESS"):
        Ssh("host", address).argv(scripts.JOIN)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key v…", "HOST_KEY_CHANGED"),
        ("Host key verification failed.", "HOST_KEY_UNKNOWN"),
        ("No ED25519 host key is known for h.\nHost key verification failed.", "HOST_KEY_UNKNOWN"),
        ("root@h: Permission denied (publickey).", "SSH_REFUSED"),
        ("ssh: connect to host h port 22: Connection refused", "SSH_UNREACHABLE"),
        ("", "SSH_UNREACHABLE"),
    ],
)
def test_failures_have_names_and_say_what_to_do(words: str, reason: str) -> None:
    found = failure("h", words)
    assert found.reason == reason
    assert found.advice in str(found)


async def test_a_port_where_nobody_listens_is_told() -> None:
    with pytest.raises(EnrolmentError, match="SSH_UNREACHABLE"):
        await Ssh("127.0.0.1", port=1, config=Path("/dev/null")).run(scripts.SHELL, timeout_s=30)


def test_what_a_host_says_does_not_steer_a_terminal() -> None:
    told = failure("h", "ssh: \x1b]0;mine\x07\x1b[2J\x9b2J gone")
    assert "gone" in str(told)
    assert str(told).replace("\n", "").isprintable()
