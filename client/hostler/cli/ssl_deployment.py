"""`hostler ssl deployment`, `csr`, `install`, `renew`, `revoke`: certificates put in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table, moment
from hostler.desired import load_message
from hostler.plans import RpcChange
from hostler.ssl_install import read_certificates

_SERVICE = "DeploymentService"
_REASONS = ("keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation")


@click.group()
def deployment() -> None:
    """Deployments: which certificate is where on hosts, who serves it, where new ones come from."""


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.deployments:
        one = each.deployment
        yield (
            one.name,
            ", ".join(one.subject_names),
            each.installed.fingerprint_sha256[:16] or "-",
            moment(each.installed, "not_after"),
            moment(each, "renew_time"),
            ", ".join(_served(served) for served in each.served) or "-",
            "; ".join([*(f.message for f in each.findings), *filter(None, [each.problem])]) or "-",
        )


def _served(served: Any) -> str:
    if served.current:
        return f"{served.listener} yes"
    if served.HasField("reload_time"):
        return f"{served.listener} from {moment(served, 'reload_time')}"
    return f"{served.listener} no"


_TABLE = Table(
    ("NAME", "FOR", "INSTALLED", "ENDS (UTC)", "RENEWS (UTC)", "SERVED", "PROBLEM"), _rows
)


def _listeners(answer: Any) -> str:
    """What came of an installation, listener by listener."""
    return ", ".join(_served(served) for served in answer.served)


@deployment.command(name="list", epilog=examples("hostler -H all ssl deployment list --handshake"))
@click.argument("name", default="")
@click.option("--handshake", is_flag=True, help="Look at what every listener serves.")
@pass_state
def list_deployments(state: State, name: str, handshake: bool) -> None:
    """List the deployments of hosts: what is installed, until when, and whether it is served."""
    request = pb.ListDeploymentsRequest(name=name, handshake=handshake)
    state.tell(rpc(pb, _SERVICE, "ListDeployments"), request, _TABLE)


@deployment.command(epilog=examples("hostler -H web1 --yes ssl deployment apply -f web.toml"))
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The deployment, in TOML.",
)
@pass_state
def apply(state: State, path: Path) -> None:
    """Declare a deployment, or change one. Installs nothing."""
    wanted = load_message(path, pb.Deployment())
    request = pb.ApplyDeploymentRequest(deployment=wanted)
    state.change(RpcChange(rpc(pb, _SERVICE, "ApplyDeployment"), request))


@deployment.command(epilog=examples("hostler -H web1 --yes ssl deployment delete web"))
@click.argument("name")
@pass_state
def delete(state: State, name: str) -> None:
    """Forget a deployment. Its files stay, and are served on."""
    request = pb.DeleteDeploymentRequest(name=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeleteDeployment"), request))


@click.command(
    epilog=examples(
        "hostler -H web1 --yes ssl csr web",
        "hostler -H web1 --yes -o json ssl csr web | jq -r '.[0].result.csr_pem' >web.csr",
    )
)
@click.argument("name")
@pass_state
def csr(state: State, name: str) -> None:
    """Make a new key on the host, and answer the request (CSR) for it.

    The key waits, unused, until a certificate for it is installed; it never leaves the host.
    """
    request = pb.CreateSigningRequestRequest(name=name)
    change = RpcChange(rpc(pb, _SERVICE, "CreateSigningRequest"), request)
    state.change(change, lambda answer: str(answer.csr_pem))


@click.command(epilog=examples("hostler -H web1 --yes ssl install web chain.pem"))
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@pass_state
def install(state: State, name: str, path: Path) -> None:
    """Put a certificate with its issuers in place, and see it served by every listener.

    If a server's syntax check fails, if it does not reload, or if it goes on serving another
    certificate, everything is as it was before.
    """
    request = pb.InstallCertificateRequest(name=name, pem=read_certificates(path))
    state.change(RpcChange(rpc(pb, _SERVICE, "InstallCertificate"), request), _listeners)


@click.command(
    epilog=examples(
        "hostler -H web1 --yes ssl renew web",
        "hostler -H web1 --yes ssl renew web --force --new-key",
    )
)
@click.argument("name")
@click.option("--force", is_flag=True, help="Even if it is not due.")
@click.option("--new-key", is_flag=True, help="With a new key, even if it has reuse_key.")
@pass_state
def renew(state: State, name: str, force: bool, new_key: bool) -> None:
    """Get a new certificate from the deployment's ACME server, install it, and see it served.

    Its key is new as well, unless the deployment has reuse_key.
    """
    request = pb.RenewDeploymentRequest(name=name, force=force, new_key=new_key)
    state.change(RpcChange(rpc(pb, _SERVICE, "RenewDeployment"), request), _listeners)


@click.command(epilog=examples("hostler -H web1 --yes ssl revoke web --reason keyCompromise"))
@click.argument("name")
@click.option("--fingerprint", default="", help="Which one, by SHA-256; else the installed one.")
@click.option("--reason", type=click.Choice(_REASONS), default=None, help="As RFC 5280 names it.")
@pass_state
def revoke(state: State, name: str, fingerprint: str, reason: str | None) -> None:
    """Have the ACME server revoke a certificate that it issued. The host goes on serving it."""
    request = pb.RevokeDeployedCertificateRequest(
        name=name, fingerprint_sha256=fingerprint, reason=reason or ""
    )
    state.change(RpcChange(rpc(pb, _SERVICE, "RevokeDeployedCertificate"), request))
