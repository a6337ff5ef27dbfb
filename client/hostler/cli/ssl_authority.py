"""`hostler ssl authority`: an internal certificate authority on a host."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hostler.api.ssl.v1 import authority_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Age
from hostler.cli.output import Table, moment
from hostler.config import ConfigError
from hostler.core import files
from hostler.plans import RpcChange
from hostler.results import HostResult
from hostler.ssl_authority import SERVICE, IssueChange, make_csr, read_csr

_MAX_CHAIN_BYTES = 128 * 1024
_FILE = click.Path(path_type=Path, dir_okay=False)
_REASONS = tuple(
    name.removeprefix("REVOCATION_REASON_").lower().replace("_", "-")
    for name in pb.RevocationReason.keys()
)


@click.group()
def authority() -> None:
    """An internal CA: what it may issue says [authority] of hostler.toml on its host, nothing else.

    Its keys never leave the host's signer, a process of its own.
    """


def _authority_rows(answer: Any) -> Iterable[Sequence[Any]]:
    found = answer.authority
    for word, certificates in (
        ("services", found.certificates),
        ("identities", found.identity_certificates),
    ):
        for certificate in certificates:
            yield word, certificate.subject, moment(certificate, "not_after"), certificate.serial
    if found.waiting_request:
        yield "services", "waits to be signed elsewhere", "-", "-"
    for profile in found.profiles:
        days = profile.max_validity.seconds / 86400
        names = (*profile.dns_names, *profile.networks)
        yield f"profile {profile.name}", ", ".join(names) or "-", f"{days:g} days", "-"


def _issued_rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.issued:
        certificate = each.certificate
        names = ", ".join(name.value for name in certificate.names)
        revoked = moment(each, "revoke_time")
        ends = moment(certificate, "not_after")
        yield certificate.serial, each.profile or "-", names, ends, revoked, each.requester


_AUTHORITY = Table(("ISSUES", "SUBJECT", "ENDS (UTC)", "SERIAL"), _authority_rows)
_ISSUED = Table(
    ("SERIAL", "PROFILE", "NAMES", "ENDS (UTC)", "REVOKED (UTC)", "REQUESTER"), _issued_rows
)


@authority.command(
    epilog=examples(
        "hostler -H ca1 --yes ssl authority init --name 'Example CA' --trust-domain example.net",
        "hostler -H ca1 --yes ssl authority init --name 'Example CA 2' --external",
    )
)
@click.option("--name", required=True, help="The common name of its certificate.")
@click.option("--trust-domain", default="", help="Issue identities of Hostler for it as well.")
@click.option("--external", is_flag=True, help="A root elsewhere signs its request.")
@pass_state
def init(state: State, name: str, trust_domain: str, external: bool) -> None:
    """Make a host an authority. One that is there already stays as it is.

    With --external its request is in `show --csr`; what the root made of it is for `complete`.
    """
    state.one_host()
    request = pb.InitAuthorityRequest(name=name, trust_domain=trust_domain, external=external)
    state.change(RpcChange(rpc(pb, SERVICE, "InitAuthority"), request))


@authority.command(epilog=examples("hostler -H ca1 --yes ssl authority complete ca.pem"))
@click.argument("chain", type=_FILE)
@pass_state
def complete(state: State, chain: Path) -> None:
    """Give an authority its certificate that was signed elsewhere, with those above it, PEM."""
    state.one_host()
    try:
        data = files.read_bounded(chain, _MAX_CHAIN_BYTES)
    except (OSError, ValueError) as e:
        raise ConfigError(str(e)) from e
    request = pb.CompleteAuthorityRequest(chain=data)
    state.change(RpcChange(rpc(pb, SERVICE, "CompleteAuthority"), request))


@authority.command(
    epilog=examples(
        "hostler -H ca1 ssl authority show",
        "hostler -H ca1 ssl authority show --pem > ca.pem    # for clients to trust",
    )
)
@click.option("--pem", "as_pem", is_flag=True, help="The issuer of profiles, as PEM.")
@click.option("--identity-pem", is_flag=True, help="The issuer of identities, as PEM.")
@click.option("--csr", "as_csr", is_flag=True, help="The request that waits to be signed, PEM.")
@pass_state
def show(state: State, as_pem: bool, identity_pem: bool, as_csr: bool) -> None:
    """Show an authority: its certificates, and what it may issue."""
    results = state.read(rpc(pb, SERVICE, "GetAuthority"), pb.GetAuthorityRequest())
    if not (as_pem or identity_pem or as_csr):
        state.finish(results, _AUTHORITY)
    state.one_host()
    for answer in _answers(results):
        found = answer.authority
        certificates = found.identity_certificates if identity_pem else found.certificates
        blocks = [("CERTIFICATE", certificate.der) for certificate in certificates]
        if as_csr:
            blocks = [("CERTIFICATE REQUEST", found.waiting_request)]
        for kind, der in blocks:
            click.echo(_pem(kind, der), nl=False)
    state.end(results)


def _answers(results: Sequence[HostResult[Any]]) -> list[Any]:
    return [result.result for result in results if result.ok]


def _pem(kind: str, der: bytes) -> str:
    import base64

    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n" if der else ""


def _csr(csr: Path | None, key: Path | None, names: Sequence[str]) -> bytes:
    """The request that was given, or one made of a key. Raises ConfigError, click.UsageError."""
    if (csr is None) == (key is None):
        raise click.UsageError("give either --csr, or --key and names")
    if csr is not None:
        return read_csr(csr)
    return make_csr(key or Path(), names)


_CSR = click.option("--csr", type=_FILE, help="A request, PKCS #10, PEM or DER.")
_KEY = click.option("--key", type=_FILE, help="Or a key, which is made if it is not there.")
_OUT = click.option("--out", type=_FILE, required=True, help="Where the certificate goes, PEM.")


@authority.command(
    epilog=examples(
        "hostler -H ca1 --yes ssl authority issue server --csr web.csr --out web.pem",
        "hostler -H ca1 --yes ssl authority issue server --key web.key --name www.example.net"
        " --validity 7d --out web.pem",
    )
)
@click.argument("profile")
@_CSR
@_KEY
@click.option("--name", "names", multiple=True, help="With --key: a DNS name or an address.")
@click.option("--validity", "validity_s", type=Age(), help="Default: what the profile allows.")
@_OUT
@pass_state
def issue(
    state: State,
    profile: str,
    csr: Path | None,
    key: Path | None,
    names: tuple[str, ...],
    validity_s: float | None,
    out: Path,
) -> None:
    """Issue a certificate for a request. The private key stays where it is."""
    state.one_host()
    request = pb.IssueCertificateRequest(profile=profile, csr=_csr(csr, key, names))
    if validity_s:
        request.validity.FromSeconds(int(validity_s))
    method = rpc(pb, SERVICE, "IssueCertificate")
    state.change(IssueChange(method, request, out), lambda answer: _written(answer, out))


def _written(answer: Any, out: Path) -> str:
    serial = f"{answer.certificate.serial} " if answer.certificate.serial else ""
    return f"issued {serial}into {out}"


@authority.command(
    epilog=examples(
        "hostler -H ca1 --yes ssl authority identity host/web1 --csr web1.csr"
        " --name web1.example.net --out web1.pem",
        "hostler -H ca1 --yes ssl authority identity user/ann --key ann.key --out ann.pem",
    )
)
@click.argument("identity")
@_CSR
@_KEY
@click.option("--name", "names", multiple=True, help="A DNS name or an address of a host.")
@_OUT
@pass_state
def identity(
    state: State,
    identity: str,
    csr: Path | None,
    key: Path | None,
    names: tuple[str, ...],
    out: Path,
) -> None:
    """Issue an identity of Hostler, user/NAME or host/NAME: who may do that can be anybody."""
    state.one_host()
    request = pb.IssueIdentityRequest(identity=identity, csr=_csr(csr, key, ()), names=names)
    method = rpc(pb, SERVICE, "IssueIdentity")
    state.change(IssueChange(method, request, out), lambda _: f"issued into {out}")


@authority.command(
    epilog=examples("hostler -H ca1 --yes ssl authority revoke 5a3f…c1 --reason key-compromise")
)
@click.argument("serial")
@click.option("--reason", type=click.Choice(_REASONS), default="unspecified", show_default=True)
@pass_state
def revoke(state: State, serial: str, reason: str) -> None:
    """Revoke a certificate that was issued. That cannot be taken back: issue another."""
    state.one_host()
    word = f"REVOCATION_REASON_{reason.upper().replace('-', '_')}"
    request = pb.RevokeCertificateRequest(serial=serial, reason=word)
    state.change(RpcChange(rpc(pb, SERVICE, "RevokeCertificate"), request))


@authority.command(
    name="list",
    epilog=examples(
        "hostler -H ca1 ssl authority list --revoked",
        "hostler -H ca1 ssl authority list --name www.example.net",
    ),
)
@click.option("--name", default="", help="Only those for this name or identity.")
@click.option("--key-sha256", default="", help="Only those with this public key.")
@click.option("--revoked", is_flag=True, help="Only those that are revoked.")
@pass_state
def list_issued(state: State, name: str, key_sha256: str, revoked: bool) -> None:
    """List what was issued, the newest first."""
    request = pb.ListIssuedCertificatesRequest(name=name, spki_sha256=key_sha256, revoked=revoked)
    method = rpc(pb, SERVICE, "ListIssuedCertificates")
    state.tell(method, request, _ISSUED, pages=True)


@authority.command(epilog=examples("hostler -H ca1 ssl authority get 5a3f…c1 > web.pem"))
@click.argument("serial")
@pass_state
def get(state: State, serial: str) -> None:
    """Print a certificate that was issued, with its issuers, PEM."""
    state.one_host()
    request = pb.GetIssuedCertificateRequest(serial=serial)
    results = state.read(rpc(pb, SERVICE, "GetIssuedCertificate"), request)
    for answer in _answers(results):
        click.echo(answer.pem, nl=False)
    state.end(results)


@authority.command(
    epilog=examples("hostler -H ca1 ssl authority crl | openssl crl -inform DER -noout -text")
)
@click.option("--identities", is_flag=True, help="Of the issuer of identities.")
@pass_state
def crl(state: State, identities: bool) -> None:
    """Write the newest list of revoked certificates to standard output, DER."""
    state.one_host()
    request = pb.GetRevocationListRequest(identities=identities)
    results = state.read(rpc(pb, SERVICE, "GetRevocationList"), request)
    for answer in _answers(results):
        sys.stdout.buffer.write(answer.crl)
    state.end(results)
