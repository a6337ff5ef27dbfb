"""What is made of iptables-save, and what is told line by line since no rule of ours can say it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.cli.main import cli
from hostler.desired import load_message
from hostler.firewall_import import Imported, ImportFailed
from hostler.firewall_iptables import import_iptables

EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
NAT = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
ANY = ["0.0.0.0/0"]


def made(*rules: str, table: str = EMPTY, **options: Any) -> Imported:
    return import_iptables(table + "\n".join(rules) + "\nCOMMIT\n", "it", **options)


def rule(words: str, **options: Any) -> pb.Rule:
    done = made(words, **options)
    assert done.unsaid == []
    (only,) = done.ruleset.rules
    only.ClearField("id")
    return only


def ports(*ranges: tuple[int, int]) -> list[pb.PortRange]:
    return [pb.PortRange(first=a, last=b) for a, b in ranges]


def test_every_match_that_a_rule_has() -> None:
    found = rule(
        "[3:180] -A FORWARD -s 10.0.0.0/8 -d 192.0.2.1/32 -i eth0 -o eth1 -p tcp -m tcp "
        '--sport 1024:65535 -m multiport --dports 80,443,8000:8010 -m comment --comment "a -j" '
        "-m conntrack --ctstate NEW,RELATED -m limit --limit 7/min --limit-burst 9 -j DROP"
    )
    assert found == pb.Rule(
        hook=pb.HOOK_FORWARD,
        action=pb.ACTION_DROP,
        protocol=pb.PROTOCOL_TCP,
        sources=["10.0.0.0/8"],
        destinations=["192.0.2.1/32"],
        in_ifname="eth0",
        out_ifname="eth1",
        source_ports=ports((1024, 65535)),
        destination_ports=ports((80, 80), (443, 443), (8000, 8010)),
        comment="a -j",
        connection_states=[pb.CONNECTION_STATE_NEW, pb.CONNECTION_STATE_RELATED],
        limit=pb.Rate(packets=7, unit=pb.RATE_UNIT_MINUTE, burst_packets=9),
    )


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("-p 47", "protocol", pb.PROTOCOL_GRE),
        ("-p all", "protocol", 0),
        ("-p icmp -m icmp --icmp-type 8", "icmp_types", ["echo-request"]),
        ("-p icmp -m icmp --icmp-type any", "icmp_types", []),
        ("-p tcp --dport :1023", "destination_ports", ports((1, 1023))),
        ("-p tcp --dport 1024:", "destination_ports", ports((1024, 65535))),
        ("-m iprange --src-range 10.0.0.1-10.0.0.2", "sources", ["10.0.0.1/32", "10.0.0.2/32"]),
        ("-m addrtype --dst-type LOCAL", "sources", ANY),
        ("-i +", "in_ifname", ""),
        ("-m limit --limit-burst 2", "limit", pb.Rate(packets=3, unit=3, burst_packets=2)),
        ('-m comment --comment "\'\\"\\\\x"', "comment", "'x"),
        ("-m comment --comment " + "x" * 70, "comment", "x" * 64),
    ],
)
def test_matches_one_by_one(words: str, field: str, value: Any) -> None:
    assert getattr(rule(f"-A INPUT {words} -j ACCEPT"), field) == value


def test_links_that_begin_so_become_a_zone() -> None:
    done = made("-A INPUT -i veth+ -j ACCEPT", "-A FORWARD -i veth+ -o Veth+ -j DROP")
    zones = [(zone.name, list(zone.ifnames)) for zone in done.ruleset.zones]
    assert zones == [("links-veth", ["veth*"]), ("links-veth-1", ["Veth*"])]
    first, second = done.ruleset.rules
    assert (first.in_zone, first.in_ifname) == ("links-veth", "")
    assert (second.in_zone, second.out_zone) == ("links-veth", "links-veth-1")


def test_targets() -> None:
    done = made(
        "-A INPUT -p tcp",
        '-A INPUT -j LOG --log-prefix "in: " --log-level 7',
        "-A INPUT -j NFLOG --nflog-prefix x --nflog-group 3",
        "-A INPUT -p tcp -j REJECT --reject-with tcp-reset",
        "-A INPUT -j REJECT --reject-with icmp-host-prohibited",
        "-A INPUT -j RETURN",
        "-A INPUT -j DROP",
    )
    assert done.unsaid == []
    actions = [pb.Action.Name(each.action)[7:] for each in done.ruleset.rules]
    assert actions == ["COUNT", "COUNT", "COUNT", "REJECT", "REJECT"]
    assert [each.HasField("log") for each in done.ruleset.rules] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert [each.comment for each in done.ruleset.rules[1:3]] == ["in:", "x"]
    assert done.notes == [
        "rejected TCP is reset, all else is answered that the port is unreachable",
        "rejected TCP is reset, all else is answered that the port is unreachable, also where it "
        "was icmp-host-prohibited",
        "lines 11 to 11 are never asked: line 10 returns",
    ]


def test_policies() -> None:
    table = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n"
    done = made(table=table)
    ruleset = done.ruleset
    assert (ruleset.input_policy, ruleset.output_policy) == (pb.ACTION_DROP, pb.ACTION_DROP)
    assert ruleset.forward_policy == 0
    assert [note.partition(" policy")[0] for note in done.notes] == ["an input", "an output"]
    exact = made("-A INPUT -j LOG", table=table, exact=True)
    assert (exact.ruleset.input_policy, exact.ruleset.output_policy) == (0, 0)
    assert [(each.id, list(each.sources), each.action) for each in exact.ruleset.rules] == [
        ("line-5", ANY, pb.ACTION_COUNT),
        ("last-input", ANY, pb.ACTION_DROP),
        ("last-output", ANY, pb.ACTION_DROP),
    ]


def test_rules_hold_for_their_family_alone_unless_told() -> None:
    words = "-A INPUT -p tcp --dport 22 -j ACCEPT"
    assert list(rule(words).sources) == ANY
    assert list(rule(words, ipv6=True).sources) == ["::/0"]
    assert list(rule(words, both_families=True).sources) == []
    assert list(rule("-A INPUT -d 10.0.0.1 -j ACCEPT").sources) == []
    heading = "# Generated by ip6tables-save v1.8.9 (nf_tables) on Thu Nov 26 2026\n"
    assert import_iptables(heading + EMPTY + words, "it").ruleset.rules[0].sources == ["::/0"]
    six = rule("-A INPUT -s fd00::/8 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT")
    assert (six.sources, six.icmp_types) == (["fd00::/8"], ["nd-neighbor-solicit"])


def test_what_is_established_needs_no_rule() -> None:
    done = made("-A INPUT -i eth0 -m state --state RELATED,ESTABLISHED -j ACCEPT")
    assert (list(done.ruleset.rules), done.unsaid) == ([], [])
    assert "# line 5: what is established passes before all rules" in done.to_toml()


def test_user_chains_stand_where_they_are_jumped_to() -> None:
    done = made(
        ":SSH - [0:0]", ":DEEP - [0:0]", ":DEAD - [0:0]",
        "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 20:30 -j SSH",
        "-A INPUT -p udp -j SSH",
        "-A SSH -s 10.1.0.0/16 -j DROP",
        "-A SSH -s 172.16.0.0/12 -j DROP",
        "-A SSH -j DEEP",
        "-A DEEP -p tcp --dport 22:40 -i eth0 -j ACCEPT",
        "-A DEEP -j RETURN",
        "-A DEEP -j DROP",
        "-A DEAD -j DROP",
    )  # fmt: skip
    assert done.unsaid == []
    said = [
        (each.id, list(each.sources), [(p.first, p.last) for p in each.destination_ports])
        for each in done.ruleset.rules
    ]
    assert said == [
        ("line-8-10", ["10.1.0.0/16"], [(20, 30)]),
        ("line-8-12-13", ["10.0.0.0/8"], [(22, 30)]),
        ("line-9-10", ["10.1.0.0/16"], []),
        ("line-9-11", ["172.16.0.0/12"], []),
    ]
    assert [each.protocol for each in done.ruleset.rules] == [1, 1, 2, 2]
    text = done.to_toml()
    assert "# line 11 matches nothing where it is reached" in text
    assert "# line 13 matches nothing where it is reached" in text
    assert "# note: nothing leads to chain DEAD, lines 16 to 16" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("! -s 10.0.0.0/8 -j DROP", "! -s 10.0.0.0/8 has no match of ours"),
        ("! -i eth0 -j DROP", "! -i eth0 has no match"),
        ("! -d 10.0.0.1 -j DROP", "! -d has no match of ours"),
        ("-s example.org -j DROP", "example.org is no network"),
        ("-s 10.0.0.0/255.0.255.0 -j DROP", "is no network that can be written"),
        ("-p 200 -j DROP", "there is no protocol 200"),
        ("-p tcp --tcp-flags SYN,ACK SYN -j DROP", "--tcp-flags has no match of ours"),
        ("-p tcp --syn -j DROP", "--syn has no match of ours"),
        ("-p tcp -m multiport --ports 1 -j DROP", "--ports has no match of ours"),
        ("-p tcp --dport http -j DROP", "http is no port"),
        ("-p tcp --dport 0 -j DROP", "port 0 cannot be written"),
        ("-p tcp --dport 9:8 -j DROP", "9:8 is no port"),
        ("-p icmp --icmp-type 3/4 -j ACCEPT", "there is no ICMP type 3/4"),
        ("-m mac --mac-source 00:11:22:33:44:55 -j ACCEPT", "no match for -m mac"),
        ("-m set --match-set bad src -j DROP", "there is no match for -m set"),
        ("-m conntrack --ctstate DNAT -j ACCEPT", "there is no state DNAT"),
        ("-m state --state ESTABLISHED -j DROP", "it cannot meet DROP"),
        ("-m limit --limit 2/day -j ACCEPT", "there is no rate 2/day"),
        ("-m addrtype --dst-type BROADCAST -j DROP", "no type of address BROADCAST"),
        ("-m iprange --src-range 10.0.0.9-10.0.0.1 -j DROP", "no range of addresses"),
        ("-j MARK --set-xmark 0x1/0xffffffff", "there is no target MARK"),
        ("-j LOG --log-uid", "--log-uid has no match of ours"),
        ("-s 10.0.0.1 -j RETURN", "there is no target RETURN"),
        ("-j GONE", "there is no target GONE"),
        ("-g MIDDLE", "what follows a -g cannot be said"),
        ("-m limit --limit 1/sec -j TWO", "a limit on the way to a chain of several rules"),
        ("-j MIDDLE", "line 8 returns from the middle of chain MIDDLE"),
        ("-j LOOP", "chains lead too deep"),
        ('-m comment --comment "open', "No closing quotation"),
        ("word -j DROP", "'word' stands alone"),
        ("-p tcp --dport 1 -m multiport --dports 1,2 -j DROP", "--dports beside another one"),
        ("-m iprange --src-range 10.0.0.1-10.0.0.2 -s 10.0.0.1 -j DROP", "-s beside another one"),
    ],
)
def test_what_cannot_be_said_is_told_by_line(words: str, why: str) -> None:
    done = made(
        ":MIDDLE - [0:0]", ":TWO - [0:0]", ":LOOP - [0:0]",
        "-A MIDDLE -s 10.0.0.1 -j RETURN", "-A MIDDLE -j DROP",
        "-A TWO -s 10.0.0.1 -j DROP", "-A TWO -s 10.0.0.2 -j DROP",
        "-A LOOP -j LOOP",
        "-A OUTPUT -j ACCEPT",
        f"-A INPUT {words}",
        "-A INPUT -p udp -j ACCEPT",
    )  # fmt: skip
    told = [each for each in done.unsaid if why in each.why]
    assert [(each.number, each.line) for each in told][-1][0] in (14, 12)
    assert any(f"line {each.number} is not said: " in done.to_toml() for each in told)
    # What comes after it is there, and the comment stands before it.
    assert [each.hook for each in done.ruleset.rules] == [pb.HOOK_INPUT, pb.HOOK_OUTPUT]
    assert done.to_toml().index("is not said") < done.to_toml().index('"line-15"')


def nat(words: str) -> pb.Ruleset:
    done = made(words, table=NAT)
    assert done.unsaid == []
    return done.ruleset


def test_nat() -> None:
    masquerade = nat("-A POSTROUTING -s 10.0.0.0/24 ! -d 10.0.0.0/24 -o eth0 -j MASQUERADE")
    assert list(masquerade.masquerades) == [pb.Masquerade(source="10.0.0.0/24", uplink="eth0")]
    whole = nat("-A POSTROUTING -o eth0 -j MASQUERADE")
    assert list(whole.masquerades) == [pb.Masquerade(source="0.0.0.0/0", uplink="eth0")]
    docker = nat("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE")
    assert list(docker.masquerades) == [pb.Masquerade(source="172.17.0.0/16")]
    source = nat("-A POSTROUTING -s 10.0.0.0/24 -d 192.0.2.0/24 -j SNAT --to-source 192.0.2.7")
    assert list(source.source_nats) == [
        pb.SourceNat(source="10.0.0.0/24", to_address="192.0.2.7", destinations=["192.0.2.0/24"])
    ]
    redirect = nat(
        "-A PREROUTING -i eth1 -s 10.0.0.0/8 -p tcp --dport 80 -j REDIRECT --to-ports 81"
    )
    assert list(redirect.redirects) == [
        pb.Redirect(protocol=1, port=80, to_port=81, in_ifname="eth1", sources=["10.0.0.0/8"])
    ]


def test_forwards() -> None:
    done = made(
        ":DOCKER - [0:0]",
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-A PREROUTING -d 192.0.2.1 -p udp --dport 5000:5001 -j DNAT --to-destination 10.0.0.2",
        "-A OUTPUT -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.3:80",
        "-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.3:80",
        table=NAT,
    )
    assert done.unsaid == []
    said = [(f.protocol, f.port, list(f.addresses), f.target_address, f.target_port)
            for f in done.ruleset.forwards]  # fmt: skip
    assert said == [
        (1, 8080, [], "10.0.0.3", 80),
        (2, 5000, ["192.0.2.1"], "10.0.0.2", 0),
        (2, 5001, ["192.0.2.1"], "10.0.0.2", 0),
    ]
    six = nat("-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination [fd00::2]:81").forwards
    assert [(f.target_address, f.target_port) for f in six] == [("fd00::2", 81)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("-A PREROUTING -i eth+ -p tcp --dport 1 -j DNAT --to-destination 10.0.0.1", "one link"),
        ("-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1", "ports of TCP or UDP"),
        ("-A PREROUTING -p tcp --dport 1:999 -j DNAT --to-destination 10.0.0.1", "more than 256"),
        ("-A PREROUTING -p tcp --dport 1 -j DNAT --to-destination 10.0.0.1-10.0.0.9", "one port"),
        ("-A PREROUTING -d 10.0.0.0/8 -p tcp --dport 1 -j DNAT --to-destination 10.0.0.1",
         "for addresses of the host"),
        ("-A PREROUTING -p tcp --dport 1 -j REDIRECT --to-ports 2-3", "leads to one port"),
        ("-A PREROUTING -p tcp --dport 1 -j ACCEPT", "ACCEPT in PREROUTING of nat"),
        ("-A OUTPUT -p tcp --dport 1 -j DNAT --to-destination 10.0.0.1", "connections alone"),
        ("-A POSTROUTING -o eth+ -j MASQUERADE", "an uplink is one link"),
        ("-A POSTROUTING -p tcp -j MASQUERADE", "a masquerade cannot ask for protocol"),
        ("-A POSTROUTING -o eth0 -j MASQUERADE --random", "--random has no words of ours"),
        ("-A POSTROUTING ! -o eth0 -j MASQUERADE", "! -o has no words of ours"),
        ("-A POSTROUTING -s 10.0.0.0/8 ! -d 10.1.0.0/16 -j MASQUERADE", "! -d of another network"),
        ("-A POSTROUTING -j SNAT --to-source 10.0.0.1-10.0.0.9", "is not one address"),
        ("-A POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE", "no state DNAT"),
    ],
)  # fmt: skip
def test_nat_that_cannot_be_said(words: str, why: str) -> None:
    done = made(words, table=NAT)
    (told,) = done.unsaid
    assert (told.number, told.line) == (5, words)
    assert why in told.why
    assert f"# line 5 is not said: {words}: " in done.to_toml()
    kinds = ("rules", "forwards", "masquerades", "source_nats", "redirects")
    assert [list(getattr(done.ruleset, kind)) for kind in kinds] == [[]] * 5


def test_other_tables_and_strange_lines() -> None:
    text = "*mangle\n:INPUT DROP [0:0]\n-A INPUT -j MARK --set-mark 1\nCOMMIT\nhello\n-X\n"
    done = import_iptables(EMPTY + text, "it")
    assert [(each.number, each.why) for each in done.unsaid] == [
        (9, "it is no line of iptables-save"),
        (10, "it is no line of iptables-save"),
        (7, "there is no table mangle of ours"),
        (6, "mangle INPUT has no policy of ours"),
    ]
    with pytest.raises(ImportFailed, match="there is no table in it"):
        import_iptables("hello\n", "it")
    with pytest.raises(ImportFailed, match="at most 100000 are read"):
        import_iptables("\n" * 100_001, "it")


def test_chains_that_multiply_end() -> None:
    chains = [f":C{n} - [0:0]" for n in range(19)]
    jumps = [f"-A C{n} -j C{n + 1}" for n in range(18) for _ in range(2)]
    with pytest.raises(ImportFailed, match=r"more than|too many rules"):
        made(*chains, *jumps, "-A C18 -p tcp -j ACCEPT", "-A INPUT -j C0")


OPTIONS = st.sampled_from(
    ["-s 10.0.0.0/8", "-d 10.0.0.1", "! -s 10.0.0.9", "-p tcp", "-p icmp", "--dport 1:", "-i a+",
     "-m limit", "--limit 1/sec", "--comment '#'", "-j A", "-j B", "-g A", "-j DROP", "-j RETURN",
     "--state NEW", "-j LOG --log-prefix [x]\\", "\x1b", "-j", "!"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.lists(OPTIONS, max_size=4)), max_size=8))
def test_every_line_is_said_or_told(tmp_path_factory: Any, lines: Any) -> None:
    """Whatever is in it: the file can be read again, and no rule of INPUT is lost in silence."""
    words = [f"-A {chain} {' '.join(options)}".rstrip() for chain, options in lines]
    text = f"{EMPTY}:A - [0:0]\n:B - [0:0]\n-A INPUT -j A\n-A INPUT -j B\n" + "\n".join(words)
    done = import_iptables(text, "it")
    path = tmp_path_factory.mktemp("made") / "it.toml"
    path.write_text(done.to_toml())
    assert load_message(path, pb.Ruleset()) == done.ruleset
    told = path.read_text()
    for number in range(9, 9 + len(words)):
        leads = re.search(r"-j [AB]\b", words[number - 9])
        named = re.search(rf"\bline[ -]([0-9]+-)*{number}\b|lines \d+ to \d+", told)
        ends = words[number - 9][5:].replace("--comment '#'", "").strip() == "-j RETURN"
        assert leads or named or ends, (number, text, told)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "rules.v4"
    path.write_text(EMPTY + "-A INPUT -p tcp -j ACCEPT\n-A INPUT ! -i lo -j DROP\nCOMMIT\n")
    answer = CliRunner().invoke(cli, ["firewall", "import", "iptables", str(path)])
    assert answer.exit_code == 1
    assert f"{path}:6: not said: -A INPUT ! -i lo -j DROP: ! -i lo has no match" in answer.stderr
    made_path = tmp_path / "made.toml"
    made_path.write_text(answer.stdout)
    assert len(load_message(made_path, pb.Ruleset()).rules) == 1
    path.write_text(EMPTY + "-A INPUT -p tcp -j ACCEPT\nCOMMIT\n")
    again = CliRunner().invoke(cli, ["firewall", "import", "iptables", "--ipv6", str(path)])
    assert again.exit_code == 0
    assert 'sources = ["::/0"]' in again.stdout
    none = CliRunner().invoke(cli, ["firewall", "import", "iptables", str(tmp_path / "none")])
    assert none.exit_code == 2


def test_the_command_reads_its_input() -> None:
    main = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"
    command = [sys.executable, "-c", main, "firewall", "import", "iptables", "-"]
    text = EMPTY + "-A INPUT -p tcp -j ACCEPT\nCOMMIT\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'id = "line-5"' in done.stdout
