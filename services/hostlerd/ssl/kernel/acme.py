"""Certificates from an ACME server. RFC 8555, RFC 9773.

The network and the account's key are this process's; the certificate's key is not: it hands over a
request that the installer signed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, Protocol

from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.log import get_log
from hostlerd.ssl.errors import AcmeFailed, AcmeRateLimited
from hostlerd.ssl.kernel.records import write_durably
from hostlerd.ssl.model.deployment import AcmeSource

log = get_log("ssl.acme")

REQUEST_S = 30
ORDER_S = 300
SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
USER_AGENT = "hostler"
# What the library raises when a server says something else than the protocol has there: it takes
# what it is told for JSON objects of the right shape.
_MALFORMED = (ValueError, KeyError, AttributeError, TypeError)


class Solver(Protocol):
    """Shows an ACME server that a name is ours."""

    #: "http-01" or "dns-01".
    kind: str

    def present(self, name: str, token: str, value: str) -> None:
        """Have the answer be there when this returns. Raises DomainError, OSError."""
        ...

    def withdraw(self, name: str, token: str, value: str) -> None:
        """Take it away. Raises DomainError, OSError."""
        ...


class Account:
    """An account at an ACME server: made when it is needed, its key of mode 0600 in `place`."""

    def __init__(self, place: Path, source: AcmeSource, roots: Path | None) -> None:
        self._place = place / hashlib.sha256(source.directory_url.encode()).hexdigest()[:32]
        self._source = source
        self._roots = roots or (SYSTEM_ROOTS if SYSTEM_ROOTS.is_file() else None)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Open a client that is registered. Raises AcmeFailed, AcmeRateLimited."""
        from acme import client, errors, messages
        from josepy.errors import Error as Undecodable
        from requests.exceptions import RequestException

        from hostlerd.ssl.kernel.acme_network import Network

        key, algorithm = self._key()
        verify: Any = str(self._roots) if self._roots else True
        net = Network(
            key, alg=algorithm, verify_ssl=verify, user_agent=USER_AGENT, timeout=REQUEST_S
        )
        try:
            directory = client.ClientV2.get_directory(self._source.directory_url, net)
            made = client.ClientV2(directory, net)
            net.account = self._registration(made)
            yield made
        except (messages.Error, errors.Error, RequestException) as e:
            _fail(e, net.not_before)
        except (Undecodable, *_MALFORMED) as e:
            _fail(e, net.not_before)
        finally:
            net.session.close()

    def _key(self) -> tuple[Any, Any]:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from josepy.jwa import ES256
        from josepy.jwk import JWKEC

        path = self._place / "account.key"
        if not path.exists():
            write_durably(
                path,
                ec.generate_private_key(ec.SECP256R1()).private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
            )
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        return JWKEC(key=key), ES256

    def _registration(self, made: Any) -> Any:
        from acme import errors, messages

        path = self._place / "account.json"
        with suppress(OSError, ValueError):
            return messages.RegistrationResource.from_json(json.loads(path.read_bytes()))
        wanted = messages.NewRegistration.from_data(
            email=self._source.email or None, terms_of_service_agreed=True
        )
        try:
            found = made.new_account(wanted)
        except errors.ConflictError as e:
            # The key is known there: what was answered then was lost here.
            found = messages.RegistrationResource(uri=e.location, body=messages.Registration())
        write_durably(path, json.dumps(found.to_json()).encode())
        return found


def obtain(made: Any, csr_pem: str, solver: Solver) -> str:
    """Order a certificate for a request; answer it with its issuers, PEM. Raises what acme does."""
    order = made.new_order(csr_pem.encode())
    presented: list[tuple[str, str, str]] = []
    try:
        for authorization in order.authorizations:
            if str(authorization.body.status.name) == "valid":
                continue
            name = authorization.body.identifier.value
            challenge = _challenge(authorization.body.challenges, solver.kind, name)
            response, value = challenge.response_and_validation(made.net.key)
            token = challenge.chall.encode("token") if solver.kind == "http-01" else ""
            presented.append((name, token, value))
            solver.present(name, token, value)
            made.answer_challenge(challenge, response)
        until = datetime.now() + timedelta(seconds=ORDER_S)
        return str(made.poll_and_finalize(order, until).fullchain_pem)
    finally:
        for each in presented:
            with suppress(OSError, DomainError):
                solver.withdraw(*each)


def _challenge(challenges: Sequence[Any], kind: str, name: str) -> Any:
    found = next((c for c in challenges if c.chall.typ == kind), None)
    if found is None:
        raise AcmeFailed(f"the ACME server does not offer {kind} for {name}")
    return found


def renewal_time(made: Any, certificate_pem: str) -> int:
    """When the server advises to renew, in seconds since 1970; 0 if it does not say. RFC 9773."""
    from acme import errors
    from cryptography import x509

    names = x509.load_pem_x509_certificate(certificate_pem.encode()).extensions
    if not any(isinstance(each.value, x509.AuthorityKeyIdentifier) for each in names):
        # The server is asked by the issuer's key, and this one does not name it.
        return 0
    try:
        at, _ = made.renewal_time(certificate_pem.encode())
    except errors.ARIError as e:
        log.warning("no advice when to renew", problem=e)
        return 0
    return int(at.timestamp()) if at else 0


def revoke(made: Any, certificate_pem: str, reason: int) -> None:
    """Revoke a certificate; one that is revoked already is no error. Raises what acme does."""
    from acme import messages
    from cryptography import x509

    try:
        made.revoke(x509.load_pem_x509_certificate(certificate_pem.encode()), reason)
    except messages.Error as e:
        if e.code != "alreadyRevoked":
            raise


def _fail(error: Exception, not_before: int) -> NoReturn:
    """Raise what an error of the library means here. Requests are never quoted."""
    from acme import errors, messages

    if isinstance(error, errors.ValidationError):
        words = "; ".join(_problems(error.failed_authzrs))
    elif isinstance(error, messages.Error):
        words = f"{error.code or error.typ}: {error.detail}"
    elif isinstance(error, errors.TimeoutError):
        words = f"the order was not done after {ORDER_S} s"
    else:
        words = f"{type(error).__name__}: {error}"
    words = words[:1000]
    limited = isinstance(error, messages.Error) and error.code == "rateLimited"
    if limited or not_before:
        raise AcmeRateLimited(f"the ACME server: {words}", retry_time=not_before) from error
    raise AcmeFailed(f"the ACME server: {words}") from error


def _problems(authorizations: Sequence[Any]) -> Iterator[str]:
    for authorization in authorizations:
        for challenge in authorization.body.challenges:
            if challenge.error is not None:
                name = authorization.body.identifier.value
                yield f"{name}: {challenge.chall.typ}: {challenge.error.detail}"
