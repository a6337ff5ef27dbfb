"""Every method there is, called by every sort of caller, at the doors of a real host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import security_access as access
import security_calls as calls
import security_lab as support
import security_people
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from hosts_witness import code_tree

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

# A user without an account, in the group that may use the unix sockets, and root.
SOMEBODY = 47110
DOMAINS = pytest.mark.parametrize("domain", support.DOMAINS)


@pytest.fixture(scope="module")
def people(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> security_people.People:
    for host in lab.hosts:
        if host.leader() is None:
            lab.boot(host.name)
    return security_people.gather(lab, tmp_path_factory.mktemp("people"))


@pytest.fixture
def untouched(h1: Host) -> Iterator[None]:
    """What the host is made of, by the word of its own tools, stays as it was."""
    before = state_of(h1)
    yield
    assert state_of(h1) == before


def state_of(host: Host) -> dict[str, str]:
    commands = {
        "namespaces": ["ip", "netns", "list"],
        "links": ["ip", "-o", "link"],
        "rules": ["nft", "list", "ruleset"],
        "bundle": ["sha256sum", "/etc/hostler/bundle.json"],
        "units": ["systemctl", "list-units", "--all", "--plain", "--no-legend", "hostler-run-*"],
    }
    return {name: host.run(argv).stdout for name, argv in commands.items()}


def test_the_table_has_a_row_for_every_method() -> None:
    methods = {access.full_name(m) for service in access.services() for m in service.methods}
    rows = access.expected()
    assert methods - set(rows) == set(), "methods that nobody has decided on"
    assert set(rows) - methods == set(), "rows of methods that are gone"


@DOMAINS
def test_a_door_serves_no_other_service(lab: Lab, h1: Host, domain: str) -> None:
    """The daemon's own word, by server reflection, against protos/."""
    pair = support.Pair.of(lab.pki, "viewer")
    with support.channel(lab, h1, domain, pair) as channel:
        served = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert served == {name.split("/")[1] for name in access.methods_of(domain)}


@DOMAINS
@pytest.mark.usefixtures("untouched")
def test_every_caller_gets_the_answer_of_the_table(
    lab: Lab, h1: Host, people: security_people.People, domain: str
) -> None:
    methods = access.methods_of(domain)
    expected = {name: row for name, row in access.expected().items() if name in methods}
    seen: dict[str, dict[str, str]] = {name: {} for name in methods}
    for who in access.REMOTE:
        for name, method in methods.items():
            # A channel each: one that failed to connect fails the next call on its own.
            with support.channel(lab, h1, domain, people[who]) as channel:
                seen[name][who] = calls.letter(channel, method)
    for who, answers in local_answers(h1, domain, list(methods)).items():
        for name, answer in answers.items():
            seen[name][who] = answer
    wrong = {
        (name, who): f"{seen[name].get(who)} instead of {answer}"
        for name, row in expected.items()
        for who, answer in row.items()
        if seen[name].get(who) != answer
    }
    assert wrong == {}
    print(f"\n{domain}: {sum(map(len, seen.values()))} answers as in the table")


def local_answers(host: Host, domain: str, methods: list[str]) -> dict[str, dict[str, str]]:
    """The answers at the unix socket, on the host, as a user of the group and as root."""
    group = host.run(["getent", "group", "hostler"]).stdout.split(":")[2]
    ids = [f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", f"--groups={group}"]
    outside = ["setpriv", *ids[:2], "--clear-groups"]
    callers = {
        "local-user": outside,
        "local-group": ["setpriv", *ids],
        "local-root": ["env"],
    }
    tree = code_tree(host)
    program = ["python3", "-IS", "-c", Path(calls.__file__).read_text()]
    told = {}
    for who, become in callers.items():
        argv = [*become, *program, tree, f"/run/hostler/{domain}.sock"]
        told[who] = json.loads(host.run(argv, stdin="\n".join(methods)).stdout)
    return told
