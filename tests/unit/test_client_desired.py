from __future__ import annotations

from pathlib import Path

import pytest

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.config import ConfigError
from hostler.desired import load_message


def load(folder: Path, text: str, message: object) -> object:
    path = folder / "want.toml"
    path.write_text(text)
    return load_message(path, message)


def test_a_whole_ruleset(tmp_path: Path) -> None:
    text = """
    name = "base"
    priority = 10
    input_policy = "drop"
    isolated_networks = ["10.1.0.0/24"]
    [[rules]]
    hook = "HOOK_INPUT"
    action = "accept"
    protocol = "tcp"
    destination_ports = [22, "8000-8010", { first = 1, last = 2 }]
    [[forwards]]
    protocol = "udp"
    port = 53
    target_address = "10.1.0.2"
    """
    assert load(tmp_path, text, ruleset_pb2.Ruleset()) == ruleset_pb2.Ruleset(
        name="base",
        priority=10,
        input_policy="ACTION_DROP",
        isolated_networks=["10.1.0.0/24"],
        rules=[
            ruleset_pb2.Rule(
                hook="HOOK_INPUT",
                action="ACTION_ACCEPT",
                protocol="PROTOCOL_TCP",
                destination_ports=[
                    ruleset_pb2.PortRange(first=22),
                    ruleset_pb2.PortRange(first=8000, last=8010),
                    ruleset_pb2.PortRange(first=1, last=2),
                ],
            )
        ],
        forwards=[ruleset_pb2.Forward(protocol="PROTOCOL_UDP", port=53, target_address="10.1.0.2")],
    )


def test_an_empty_table_chooses_the_kind_of_link(tmp_path: Path) -> None:
    text = '[[namespaces]]\nname = "a"\n[[namespaces.interfaces]]\nveth = {}\nmtu_bytes = 9000\n'
    made = load(tmp_path, text, namespace_pb2.ApplyNamespacesRequest())
    link = made.namespaces[0].interfaces[0]  # type: ignore[attr-defined]
    assert link.WhichOneof("link") == "veth"
    assert link.mtu_bytes == 9000


def test_maps_and_durations(tmp_path: Path) -> None:
    text = 'environment = { A = "1" }\nstop_timeout = "2.5s"\nrestart = { delay = 3 }\n'
    made = load(tmp_path, text, process_pb2.Process())
    assert made.environment["A"] == "1"  # type: ignore[attr-defined]
    assert made.stop_timeout.ToMilliseconds() == 2500  # type: ignore[attr-defined]
    assert made.restart.delay.seconds == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nmae = 1", "nmae: unknown key; known: name, priority"),
        ("name = 1", "name: text is needed, not 1"),
        ("priority = true", "priority: a whole number is needed"),
        ("priority = -1", "priority: -1 is not from 0 to 4294967295"),
        ("persistent = 1", "persistent: true or false is needed"),
        ("rules = {}", "rules: a list is needed"),
        ("rules = [3]", "rules[0]: a table is needed"),
        ("rules = [{}, {prtocol = 'tcp'}]", "rules[1].prtocol: unknown key"),
        ("rules = [{protocol = 'dccp'}]", "'dccp' is not one of tcp, udp, icmp"),
        ("rules = [{protocol = 6}]", "6 is not one of tcp, udp, icmp"),
        ("rules = [{destination_ports = ['x']}]", "rules[0].destination_ports[0]: a port such as"),
        ("isolated_networks = [1]", "isolated_networks[0]: text is needed"),
    ],
)
def test_every_mistake_is_named_by_file_and_path(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, ruleset_pb2.Ruleset())
    assert f"{tmp_path / 'want.toml'}:1: " in str(caught.value)
    assert words in str(caught.value)


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "a = 1\nb = 2\npriority = 'x'", ruleset_pb2.Ruleset())
    assert len(str(caught.value).splitlines()) == 3


def test_mistakes_in_other_kinds(tmp_path: Path) -> None:
    text = """
    environment = ["A"]
    stop_timeout = "soon"
    [limits]
    io_weight = 1.5
    """
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, process_pb2.Process())
    words = str(caught.value)
    assert "environment: a table is needed" in words
    assert 'stop_timeout: a time such as "10s"' in words
    assert "limits.io_weight: a whole number is needed, not 1.5" in words


def test_two_kinds_of_link_are_refused(tmp_path: Path) -> None:
    text = "[[interfaces]]\nveth = {}\nmacvlan = {}\n"
    with pytest.raises(ConfigError, match=r"interfaces\[0\].macvlan: cannot stand beside veth"):
        load(tmp_path, text, namespace_pb2.Namespace())
