"""Judging chains: ours beside cryptography's verifier alone, and a loop of `openssl verify`.

Ours runs that verifier as well, after its own rules; a chain is three certificates as PEM, and each
contestant reads and judges all of them.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from report import Row
from rounds import in_turn

from hostler.core.ssl.judge import judge_bytes

CHAINS = 200
ROUNDS = 5
BUDGET_S = 60.0


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain, as PEM."""

    name: str
    leaf: bytes
    inner: bytes
    root: bytes


def rows() -> list[Row]:
    """Measure all in turn: milliseconds for each chain."""
    chains = [chain(n) for n in range(CHAINS)]
    with tempfile.TemporaryDirectory() as folder:
        for n, one in enumerate(chains):
            for what in ("leaf", "inner", "root"):
                Path(folder, f"{n}.{what}").write_bytes(getattr(one, what))
        found = in_turn(
            {
                "ours": lambda: ms(lambda: [ours(one) for one in chains]),
                "verifier": lambda: ms(lambda: [verifier(one) for one in chains]),
                "openssl": lambda: ms(lambda: [openssl(folder, n) for n in range(CHAINS)]),
            },
            ROUNDS,
            BUDGET_S,
        )
    each = {name: tuple(value / CHAINS for value in values) for name, values in found.items()}
    metric = "ms to judge a chain of three"
    return [
        Row("chains", metric, each["ours"], each["verifier"], "cryptography's verifier alone"),
        Row("chains", metric, each["ours"], each["openssl"], "openssl verify, a process each"),
    ]


def ours(one: Chain) -> None:
    """Judge a chain; it is a good one."""
    judged = judge_bytes(one.leaf, [one.inner], [one.root], name=one.name)
    if not judged.verdict.ok:
        raise RuntimeError(str(judged.verdict.reasons))


def verifier(one: Chain) -> None:
    """Read and verify a chain."""
    leaf, inner, root = map(x509.load_pem_x509_certificate, (one.leaf, one.inner, one.root))
    policy = PolicyBuilder().store(Store([root]))
    policy.build_server_verifier(x509.DNSName(one.name)).verify(leaf, [inner])


def openssl(folder: str, n: int) -> None:
    """Have openssl verify a chain."""
    root, inner, leaf = (f"{folder}/{n}.{what}" for what in ("root", "inner", "leaf"))
    subprocess.run(
        ["openssl", "verify", "-CAfile", root, "-untrusted", inner, leaf],
        check=True, stdout=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def ms(run: Callable[[], object]) -> float:
    """Answer how long something took, in milliseconds."""
    start = time.monotonic()
    run()
    return (time.monotonic() - start) * 1000


def chain(n: int) -> Chain:
    """Make a root, a CA below it, and a leaf."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    subjects = [named(f"{what} {n}") for what in ("Root", "Inner", "Leaf")]
    made = [
        certificate(subjects[at], subjects[max(0, at - 1)], keys[at], keys[max(0, at - 1)], at < 2)
        for at in range(3)
    ]
    root, inner, leaf = (c.public_bytes(serialization.Encoding.PEM) for c in made)
    return Chain("www.example.com", leaf, inner, root)


def named(text: str) -> x509.Name:
    """A name with that common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    ca: bool,
) -> x509.Certificate:
    """Make one certificate."""
    now = datetime.now(UTC)
    usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
    )
    if not ca:
        names = x509.SubjectAlternativeName([x509.DNSName("www.example.com")])
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(names, critical=False).add_extension(server, critical=False)
    return builder.sign(signer, hashes.SHA256())
