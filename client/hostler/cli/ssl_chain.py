"""`hostler ssl chain`: whether a chain is good, what is wrong with it, and a better one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hostler.cli.asking import ask
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds

if TYPE_CHECKING:
    from hostler.api.ssl.v1.chain_pb2 import ChainQuery
    from hostler.core.ssl.certificate import Certificate
    from hostler.core.ssl.chain import ChainReport
    from hostler.core.ssl.fetch import HttpFetcher
    from hostler.core.ssl.paths import Rules
    from hostler.core.ssl.revocation import Revocation

_ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.%a-z]+\]|[^:/\s]+):(\d{1,5})")
_USAGES = ("server", "client", "any")


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at: its certificates in their order, faults, and hashes of its keys."""

    certificates: tuple[Certificate, ...]
    faults: tuple[str, ...]
    keys: frozenset[str]
    name: str | None


@click.command(
    name="chain",
    epilog=examples(
        "hostler ssl chain www.example.com:443",
        "hostler ssl chain 192.0.2.7:8443 --name intranet.example --roots company-ca.pem",
        "hostler ssl chain /etc/ssl/www.pem --name www.example.com --write /etc/ssl/chain.pem",
        "hostler -o json ssl chain cert.pem --no-fetch",
        "hostler -H web1 ssl chain /etc/ssl/www.pem",
        "hostler -H web1 ssl chain www --write    # a deployment: completed, and seen served",
        "hostler -H all ssl chain www.example.com:443 --send    # would these hosts trust it?",
    ),
)
@click.argument("target", metavar="FILE|HOST:PORT|DEPLOYMENT")
@click.option(
    "--write",
    "out",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Write the chain to serve here, the leaf first; a file that is there keeps its owner. "
    "Without FILE, where it came from.",
)
@click.option("--send", is_flag=True, help="With -H: look at it here, and send its certificates.")
@click.option(
    "--roots",
    "roots_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trust these alone, as a CA of one's own; the system's store otherwise.",
)
@click.option("--no-fetch", is_flag=True, help="Never fetch an issuer that is missing (AIA).")
@click.option("--name", help="The name clients ask for.  [default: HOST of HOST:PORT]")
@click.option("--usage", type=click.Choice(_USAGES), default="server", show_default=True)
@click.option(
    "--rules",
    "profile",
    type=click.Choice(["private", "web", "strict"]),
    help="Judge by RFC 5280, 6.1 alone, by the rules of public CAs, or by these to the letter for "
    "roots as well.  [default: web; private with --roots]",
)
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The passphrase of a PKCS #12 or key, in its first line.",
)
@click.option(
    "--intermediates",
    "known_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="More certificates to build paths of, which are not served. May be given several times.",
)
@click.option(
    "--revocation",
    type=click.Choice(["off", "ask", "require"]),
    default="off",
    show_default=True,
    help="Ask OCSP responders and CRLs; refuse what nothing is known of with 'require'.",
)
@click.option(
    "--crl",
    "crl_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A CRL to go by, whatever --revocation says. May be given several times.",
)
@click.option("--within", "within_s", type=Seconds(), default="20s", show_default=True)
@pass_state
def chain(
    state: State,
    target: str,
    out: str | None,
    send: bool,
    roots_file: Path | None,
    no_fetch: bool,
    name: str | None,
    usage: str,
    profile: str | None,
    passphrase_file: Path | None,
    known_files: tuple[Path, ...],
    revocation: str,
    crl_files: tuple[Path, ...],
    within_s: float,
) -> None:
    """Build every path from a certificate to a root, judge them, and tell what clients make of it.

    Told are the best path, what of it is missing, superfluous, out of order or expired where it is
    served, and which kinds of clients fail. Exit status 0 if it is good and all kinds of clients
    take it (or what --write has written), else 1.

    With -H the selected hosts do it, with what lies there and what they trust: FILE is theirs. They
    fetch issuers if their configuration lets them. Written is below install_directories, or to the
    files of a deployment, whose servers reload and have to serve it, or all is as it was.
    """
    from hostler.cli.ssl_chain_output import show_report
    from hostler.core.ssl.chain import report
    from hostler.core.ssl.fetch import HttpFetcher
    from hostler.core.ssl.served import leaf_of

    if state.selectors:
        if revocation != "off" or crl_files:
            raise click.UsageError("--revocation and --crl are for chains judged here, without -H")
        sent = _target(target, name, passphrase_file, within_s) if send else None
        query = _query(target, sent, name, usage, profile, no_fetch, within_s)
        query.roots_pem = _sent([roots_file] if roots_file else [])
        query.intermediates_pem = _sent(known_files)
        _on_hosts(state, target, out, query)
    if send:
        raise click.UsageError("--send is for hosts: give -H")
    found = _target(target, name, passphrase_file, within_s)
    leaf = leaf_of(found.certificates, found.keys)
    roots = _roots(roots_file)
    rules = _rules(found.name, usage, profile or ("private" if roots_file else "web"))
    fetch = None if no_fetch else HttpFetcher()
    told = report(
        found.certificates, leaf, roots, rules, fetch=fetch, within_s=within_s,
        revocation=_revocation(revocation, crl_files, fetch),
        known=[certificate for path in known_files for certificate in _certificates(path)],
    )  # fmt: skip
    show_report(told, found.faults, state.output)
    ok = told.ok
    if out is not None:
        ok = _write(state, _place(out, target), told, roots, rules)
    click.get_current_context().exit(0 if ok else 1)


def _query(
    target: str,
    sent: Target | None,
    name: str | None,
    usage: str,
    profile: str | None,
    no_fetch: bool,
    within_s: float,
) -> ChainQuery:
    """What hosts are asked: of certificates that are sent, of a file of theirs, of a deployment."""
    from hostler.api.ssl.v1 import chain_pb2 as pb

    query = pb.ChainQuery(name=name or "", usage=usage, rules=profile or "", fetch=not no_fetch)
    query.within.FromNanoseconds(int(within_s * 1e9))
    if sent is not None:
        query.pem, query.name = _pem(sent.certificates), sent.name or ""
    elif target.startswith("/"):
        query.path = target
    elif _ENDPOINT.fullmatch(target):
        raise click.UsageError("hosts look at files and deployments; with --send, you at HOST:PORT")
    else:
        query.deployment = target
    return query


def _on_hosts(state: State, target: str, out: str | None, query: ChainQuery) -> NoReturn:
    from hostler.cli.ssl_chain_hosts import build_on_hosts, write_on_hosts

    if out is None:
        build_on_hosts(state, query)
    if out == "" and query.pem:
        raise click.UsageError("--write: give the FILE there that it is to be written to")
    if out in ("", target):
        # The host starts from what lies at the place itself, whether its inventory has it or not.
        query.ClearField("path")
    write_on_hosts(state, out or target, query)


def _sent(paths: Sequence[Path]) -> str:
    return _pem([certificate for path in paths for certificate in _certificates(path)])


def _pem(certificates: Sequence[Certificate]) -> str:
    from hostler.core.ssl.pem import written

    return b"".join(written(each.data) for each in certificates).decode("ascii")


def _place(out: str, target: str) -> Path:
    """Where it is written to: to the file that it came from if none is given."""
    if not out and not Path(target).exists():
        raise click.UsageError("--write: give the FILE that it is to be written to")
    return Path(out or target)


def _target(target: str, name: str | None, passphrase_file: Path | None, within_s: float) -> Target:
    from hostler.core.ssl.reading import read_contents

    path, endpoint = Path(target), _ENDPOINT.fullmatch(target)
    if not path.exists() and endpoint is not None:
        return _endpoint(endpoint[1].strip("[]"), int(endpoint[2]), name, within_s)
    passphrase = None
    if passphrase_file is not None:
        passphrase = _bytes_of(passphrase_file).split(b"\n", 1)[0].rstrip(b"\r")
    contents = read_contents(_bytes_of(path), target, passphrase)
    faults = tuple(map(str, contents.faults))
    if not contents.certificates:
        raise click.ClickException("; ".join(faults) or f"{target}: no certificate is in it")
    known = {certificate.spki_sha256 for certificate in contents.certificates}
    for key in contents.keys:
        if key.facts.spki_sha256 and key.facts.spki_sha256 not in known:
            faults += (f"{key.place}: the key is that of no certificate here",)
    keys = frozenset(key.facts.spki_sha256 for key in contents.keys)
    return Target(contents.certificates, faults, keys, name)


def _endpoint(host: str, port: int, name: str | None, within_s: float) -> Target:
    from hostler.core.ssl.certificate import Certificate, CertificateUnreadable
    from hostler.core.ssl.handshake import HandshakeFailed, served_chain

    try:
        sent = served_chain(host, port, name or host, within_s)
    except HandshakeFailed as error:
        raise click.ClickException(str(error)) from error
    certificates: list[Certificate] = []
    faults: list[str] = []
    for index, data in enumerate(sent, 1):
        try:
            certificates.append(Certificate.read(data, f"served {index}"))
        except CertificateUnreadable as error:
            faults.append(f"served {index}: {error}")
    if not certificates:
        raise click.ClickException(f"{host}:{port}: {faults[0]}")
    return Target(tuple(certificates), tuple(faults), frozenset(), name or host)


def _roots(roots_file: Path | None) -> Sequence[Certificate]:
    from hostler.core.ssl.stores import read_store, system_store

    path = roots_file or system_store()
    if path is None:
        raise click.ClickException("this system has no store of roots that is known: give --roots")
    try:
        return read_store(path)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _certificates(path: Path) -> Sequence[Certificate]:
    from hostler.core.ssl.reading import read_contents

    contents = read_contents(_bytes_of(path), str(path))
    if not contents.certificates:
        faults = "; ".join(map(str, contents.faults[:3]))
        raise click.ClickException(faults or f"{path}: no certificate is in it")
    return contents.certificates


def _revocation(
    asked: str, crl_files: Sequence[Path], fetch: HttpFetcher | None
) -> Revocation | None:
    from hostler.core.ssl.reading import read_contents
    from hostler.core.ssl.revocation import MAX_LIST_BYTES, Revocation

    if asked == "off" and not crl_files:
        return None
    lists: list[bytes] = []
    for path in crl_files:
        data = _bytes_of(path, MAX_LIST_BYTES)
        found = read_contents(data, str(path), max_bytes=MAX_LIST_BYTES)
        if not found.crls:
            faults = "; ".join(map(str, found.faults[:3]))
            raise click.ClickException(faults or f"{path}: no CRL is in it")
        lists.extend(found.crls)
    return Revocation(
        crls=tuple(lists),
        required=asked == "require",
        fetch=replace(fetch, max_bytes=MAX_LIST_BYTES) if fetch and asked != "off" else None,
    )


def _bytes_of(path: Path, limit_bytes: int = 0) -> bytes:
    """Read at most a little more than what is taken, which names what is larger."""
    from hostler.core.ssl.reading import MAX_BYTES

    try:
        with path.open("rb") as stream:
            return stream.read((limit_bytes or MAX_BYTES) + 1)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from error


def _rules(name: str | None, usage: str, profile: str) -> Rules:
    from hostler.core.ssl.host_name import NameUnusable, WantedName
    from hostler.core.ssl.paths import Rules
    from hostler.core.ssl.profile import Profile, Usage

    usages = {"server": Usage.SERVER, "client": Usage.CLIENT, "any": Usage.ANY}
    try:
        wanted = WantedName.parse(name) if name is not None else None
    except NameUnusable as error:
        raise click.UsageError(str(error)) from error
    return Rules(datetime.now(UTC), usages[usage], wanted, Profile(profile))


def _write(
    state: State, out: Path, told: ChainReport, roots: Sequence[Certificate], rules: Rules
) -> bool:
    """Write the better chain; answers whether every kind of client takes it."""
    from hostler.cli.ssl_chain_output import number_of
    from hostler.core.ssl.chain import report
    from hostler.core.ssl.chain_file import ChainNotWritten, chain_text, write_chain
    from hostler.core.ssl.reading import read_contents

    if not told.to_serve:
        raise click.ClickException(f"{out} is not written: there is no good path")
    said = number_of(len(told.to_serve))
    if out.exists() and _bytes_of(out) == chain_text(told.to_serve):
        click.echo(f"{out} has these {said} already.", err=True)
    elif state.plan_only:
        click.echo(f"{out} would get {said}.", err=True)
        return told.ok
    else:
        if out.exists():
            ask(state, f"Replace {out} by {said}?")
        try:
            write_chain(out, told.to_serve)
        except ChainNotWritten as error:
            raise click.ClickException(f"not written: {error}") from error
        click.echo(f"{out} has {said}, the leaf first, and was read again.", err=True)
    written = read_contents(_bytes_of(out), str(out)).certificates
    return report(written, written[0], roots, rules).ok
