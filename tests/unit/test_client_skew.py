"""What hosts of other versions answer, in the client's words: never a crash, never a riddle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_doors import World, rich, world

import hostler.aio
from hostler.api.common.v1 import bundle_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.api.storage.v1 import graph_pb2
from hostler.channel import Rpc
from hostler.results import CallFailed, HostError
from hostler.session import NO_RETRY
from hostler.skew import METHOD_MISSING, explained, word

CLIENT = Path(hostler.aio.__file__).parent
LIST = hostler.aio.rpc(namespace_pb2, "NamespaceService", "ListNamespaces")
CREATE = hostler.aio.rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
LOGS = hostler.aio.rpc(process_pb2, "ProcessService", "StreamLogs")
RUN = hostler.aio.rpc(process_pb2, "ProcessService", "RunProcess")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def connect(fleet: World) -> hostler.aio.Client:
    return hostler.aio.connect(config=fleet.config, timeout_s=20, retry=NO_RETRY)


def later(method: Rpc) -> Rpc:
    """A method that came later, as no daemon has it."""
    return replace(method, path=method.path + "Quickly")


def check(error: HostError, method: Rpc, daemon: str = "0.1.0") -> None:
    assert (error.code, error.reason) == ("UNIMPLEMENTED", METHOD_MISSING)
    assert not error.uncertain
    assert method.path.rpartition(".")[2].replace("/", ".") in error.message
    assert "upgrade hostler-netns" in error.message
    assert error.metadata["client_version"] == version("hostler")
    assert error.metadata.get("daemon_version", "") == daemon
    assert daemon in error.message


async def test_a_method_that_a_host_lacks_is_told_with_both_versions(fleet: World) -> None:
    fleet.start("h1")
    client = connect(fleet)
    (host,) = client.select("h1")
    (result,) = await client.call(later(LIST), namespace_pb2.ListNamespacesRequest(), "h1")
    assert result.error
    check(result.error, later(LIST))
    async with client.session(host) as session:
        with pytest.raises(CallFailed) as caught:
            async for _ in session.stream(later(LOGS), process_pb2.StreamLogsRequest()):
                pass
        check(caught.value.error, later(LOGS))

        async def requests() -> Any:
            yield process_pb2.RunProcessRequest()

        with pytest.raises(CallFailed) as caught:
            async for _ in session.converse(later(RUN), requests()):
                pass
        check(caught.value.error, later(RUN))


async def test_a_host_that_does_not_tell_its_version_is_answer_enough(fleet: World) -> None:
    denied = rich(grpc.StatusCode.PERMISSION_DENIED, "NO_BUNDLE", "no")
    fleet.start("h1").refusals["GetHost"] = [denied]
    (result,) = await connect(fleet).call(later(LIST), namespace_pb2.ListNamespacesRequest(), "h1")
    assert result.error
    check(result.error, later(LIST), daemon="")


async def test_a_door_that_is_not_there_names_the_package(fleet: World, tmp_path: Path) -> None:
    fleet.dead("h1")
    with fleet.fleet.open("a") as file:
        file.write(f'[hosts.h2]\naddress = "unix:{tmp_path}/none"\n')
    results = await connect(fleet).call(LIST, namespace_pb2.ListNamespacesRequest(), "all")
    for result in results:
        assert result.error and result.error.reason == "UNREACHABLE"
        assert "is hostler-netns installed" in result.error.message


async def told(method: Rpc, *paths: str) -> HostError:
    """What a daemon says of fields that it does not know, in the words of the client."""
    violations = tuple({"field": path, "description": "no such field"} for path in paths)
    message = "; ".join(f"{path}: no such field" for path in paths)
    said = HostError("INVALID_ARGUMENT", "NOT_KNOWN_HERE", message, violations=violations)

    async def nobody_asks() -> str:
        raise AssertionError

    return await explained(method, said, nobody_asks)


async def test_fields_are_told_by_the_names_that_the_client_has_for_them() -> None:
    error = await told(CREATE, "namespace.interfaces[2].macvlan.1", "change.2", "namespace.19999")
    assert [v["field"] for v in error.violations] == [
        "namespace.interfaces[2].macvlan.parent",
        "change.request_id",
        "namespace.19999",
    ]
    assert error.message.startswith("namespace.interfaces[2].macvlan.parent: no such field; ch")


@pytest.mark.parametrize("path", ["", "a", "1.2.3", "a.b[x.y].4", "change.request_id.1", "[.", "."])
async def test_a_path_of_nowhere_stays_as_it_is(path: str) -> None:
    assert (await told(CREATE, path)).violations[0]["field"] == path


async def test_a_key_of_a_map_may_have_dots() -> None:
    of_maps = Rpc("netns", "/a.B/C", bundle_pb2.GetBundleResponse, bundle_pb2.GetBundleResponse)
    error = await told(of_maps, "bundle.members[user/a.b].1")
    assert error.violations[0]["field"] == "bundle.members[user/a.b].groups"


def test_words_of_enumerations() -> None:
    assert word(graph_pb2.NodeKind, graph_pb2.NODE_KIND_MD) == "md"
    assert word(ruleset_pb2.Protocol, 0) == "unspecified"
    assert word(process_pb2.Restart.Policy, process_pb2.Restart.POLICY_ON_FAILURE) == "on failure"
    assert word(ruleset_pb2.Protocol, 77) == "unknown (77)"


# Of no host's answer: constants of this client's own stubs, and names in certificates.
NO_ANSWERS = {"cedar.py", "cli/ssl_inventory.py", "ssl_authority.py"}


def test_no_name_of_an_enumeration_is_looked_up_that_may_not_be_there() -> None:
    """`Enum.Name` raises ValueError for a value that came later; `word` does not."""
    with pytest.raises(ValueError, match="77"):
        ruleset_pb2.Protocol.Name(77)  # type: ignore[arg-type]
    found = {
        str(path.relative_to(CLIENT))
        for path in CLIENT.rglob("*.py")
        if not {"api", "core"} & set(path.relative_to(CLIENT).parts)
        and re.search(r"\b[A-Z]\w+\.Name\(|values_by_number\[", path.read_text())
    }
    assert found - NO_ANSWERS <= {"skew.py", "desired_text.py"}
