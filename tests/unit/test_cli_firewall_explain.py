"""`hostler firewall explain` against real servers."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from client_doors import world

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.cli.main import cli

PACKET = ("--from", "10.0.0.2", "--to", "10.0.0.1", "--dport", "22", "--in", "a0")


def test_now_and_then(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text('name = "web"\n')
    with world(tmp_path) as fleet:
        fleet.start("h1")
        fleet.start("h2")
        env = {"HOSTLER_CONFIG": str(fleet.config), "XDG_STATE_HOME": str(tmp_path / "state")}

        def run(*args: str) -> Result:
            return CliRunner().invoke(cli, args, env=env)

        shown = run("-H", "all", "firewall", "explain", *PACKET, "-f", str(file))
        told = run("-H", "h1", "-o", "json", "firewall", "explain", *PACKET)
        bad = run("-H", "h1", "firewall", "explain", *PACKET, "--proto", "x")
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[1] == ["h1", "now", "accept", "input", "a0", "inet", "x", "y", "accept"]
    assert rows[2] == ["h1", "then", "drop", "web/ssh", "drop"]
    assert [row[0] for row in rows[1:]] == ["h1", "h1", "h2", "h2"]
    (only,) = json.loads(told.stdout)
    assert only["result"]["now"]["verdict"] == "VERDICT_ACCEPT"
    assert "then" not in only["result"]
    assert bad.exit_code == 2


def test_without_a_ruleset_and_by_its_icmp_type(tmp_path: Path) -> None:
    words = ("--from", "10.0.0.2", "--to", "10.0.0.1", "--icmp-type", "echo-reply")
    with world(tmp_path) as fleet:
        host = fleet.start("h1")
        env = {"HOSTLER_CONFIG": str(fleet.config), "XDG_STATE_HOME": str(tmp_path / "state")}
        shown = CliRunner().invoke(
            cli, ["-H", "h1", "firewall", "explain", *words, "--delete", "web"], env=env
        )
        wrong = CliRunner().invoke(
            cli, ["-H", "h1", "firewall", "explain", *words, "--proto", "udp"], env=env
        )
    assert shown.exit_code == 0, shown.output
    (request,) = host.named("ExplainPacket")
    assert request.delete_names == ["web"]
    assert (request.packet.protocol, request.packet.icmp_type) == (
        ruleset_pb2.PROTOCOL_ICMP,
        "echo-reply",
    )
    # What cannot be told is said, and by whom.
    assert shown.stdout.splitlines()[2].split() == [
        *("h1", "then", "unknown"),
        *"no scratch namespace to try web in".split(),
    ]
    assert wrong.exit_code == 2
    assert "--icmp-type" in wrong.stderr
