"""Certificates of several deployments in one run: one reload of their server, or all as before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from ssl_authority import Authority, pem
from ssl_servers import free_port, running, served
from ssl_world import World

from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostler.results import CallFailed, HostError
from hostler.ssl_install import Brought, install
from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.ssl.errors import CertificateNotIssued, DeploymentNotFound, KeyMismatch

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
NAMES = ("web", "second")


class Direct:
    """A session with the service itself; what it refuses comes as it comes from a host."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def call(self, method: Any, request: Any) -> Any:
        context: Any = None
        try:
            name = method.path.rpartition("/")[2]
            return await getattr(self._world.service, name)(request, context)
        except DomainError as e:
            raise CallFailed(HostError(e.code.name, e.reason, e.message)) from e


class Two:
    """Two deployments of one nginx, and an authority that issues for them."""

    def __init__(self, world: World) -> None:
        self.world, self.authority = world, Authority("corporate")

    def deployment(self, name: str, port: int = 0) -> pb.Deployment:
        made = self.world.deployment()
        if name != "web":
            made.name, made.subject_names[:] = name, ["b.test"]
            made.key.path, made.full_chain.path = (
                str(self.world.files / f"{name}.{suffix}") for suffix in ("key", "pem")
            )
        if port:
            made.servers[0].listeners.append(f"127.0.0.1:{port}")
        return made

    async def brought(self) -> dict[str, str]:
        """Certificates for new keys of both, PEM."""
        made = {}
        for name in NAMES:
            asked = await self.world.ask("CreateSigningRequest", name=name)
            made[name] = pem(self.authority.issue(asked.csr_pem), self.authority.intermediate)
        return made

    async def install(self, texts: dict[str, str]) -> Any:
        installs = [pb.BroughtCertificate(name=name, pem=text) for name, text in texts.items()]
        return await self.world.ask("InstallCertificates", installs=installs)

    @contextmanager
    def nginx(self) -> Iterator[None]:
        world, port = self.world, self.world.nginx.port
        world.nginx.configure(
            extra=f"server {{ listen 127.0.0.1:{port} ssl; server_name b.test; return 204;"
            f" ssl_certificate {world.files}/second.pem;"
            f" ssl_certificate_key {world.files}/second.key; }}"
        )
        with running(world.nginx.argv(), port):
            yield

    def reloads(self) -> int:
        return (self.world.place / "error.log").read_text().count("signal 1 (SIGHUP) received")

    def shown(self) -> dict[str, str]:
        names = zip(NAMES, ("a.test", "b.test"), strict=True)
        return {name: served(self.world.nginx.port, host) for name, host in names}


@pytest.fixture
async def two(tmp_path: Path) -> Any:
    world = World(tmp_path)
    world.serve()
    made = Two(world)
    for name in NAMES:
        bare = made.deployment(name)
        del bare.servers[:]
        await world.apply(bare)
    first = await made.install(await made.brought())
    assert first.change.changed and not first.served
    for name in NAMES:
        await world.apply(made.deployment(name))
    yield made
    assert world.installer.process
    world.installer.process.terminate()
    world.installer.process.wait(20)


def leaf(text: str) -> str:
    from cryptography.hazmat.primitives import hashes

    return x509.load_pem_x509_certificate(text.encode()).fingerprint(hashes.SHA256()).hex()


async def test_all_of_them_with_one_reload_or_none(two: Two) -> None:
    with two.nginx():
        new = await two.brought()
        done = await two.install(new)
        assert [each.current for each in done.served] == [True, True]
        (step,) = done.change.plan.steps
        assert "web, second; reload nginx-of-the-test.service, once each" in step.description
        assert two.reloads() == 1
        wanted = {name: leaf(text) for name, text in new.items()}
        assert two.shown() == wanted
        again = await two.install(new)
        assert not again.change.changed and two.reloads() == 1
        # One that is no good is the end of all.
        newer = await two.brought()
        stranger, _ = two.authority.issue_for("b.test")
        for texts, refusal in (
            ({**newer, "second": pem(stranger)}, KeyMismatch),
            ({**newer, "third": newer["web"]}, DeploymentNotFound),
            ({**newer, "../x": newer["web"]}, InvalidRequest),
            ({"web": newer["web"], "second": ""}, CertificateNotIssued),
            ({}, InvalidRequest),
        ):
            with pytest.raises(refusal):
                await two.install(texts)
        assert two.shown() == wanted and two.reloads() == 1


async def test_what_is_refused_together_is_tried_one_by_one(two: Two) -> None:
    world = two.world
    world.installer.configure(world.files, world.nginx, served_within_s=1)
    with two.nginx():
        old = two.shown()
        # Nobody listens at one of its places: it will never be served there.
        await world.apply(two.deployment("second", free_port()))
        new = await two.brought()
        units = frozenset({world.nginx.unit})
        session: Any = Direct(world)
        brought = [Brought(name, new[name], units) for name in reversed(NAMES)]
        done = await install(session, brought, lambda what: "")
        assert done.names == ["web"] and list(done.answers) == ["web"]
        (problem,) = done.problems
        assert problem.reason == "NOT_SERVED" and problem.message.startswith("second: ")
        assert two.shown() == {"web": leaf(new["web"]), "second": old["second"]}
