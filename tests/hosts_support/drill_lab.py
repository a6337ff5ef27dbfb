"""A fleet whose keys got out: certificates that share keys, over three hosts, some on two of them.

What is served, what lies in files and what is revoked is told by openssl alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import security_lab as support
from authority_place import openssl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nginx_lab import FOLDER, authority_on, nginx_on

from hostler.api.ssl.v1 import authority_pb2, authority_pb2_grpc, deployment_pb2
from hostler.api.ssl.v1 import deployment_pb2_grpc as deployments
from hostler.lab.host import Host
from hostler.lab.lab import Lab

_HTTP = """
user www-data; worker_processes 1; pid /run/nginx.pid; error_log /var/log/nginx/error.log;
events {} http { access_log off; server_names_hash_bucket_size 128;
"""
_SERVER = """
server {{ listen 443 ssl; server_name {name}; ssl_certificate {folder}/{short}.pem;
  ssl_certificate_key {folder}/{short}.key; return 204; }}
"""
# Per name: what is served there, by its fingerprint and the hash of its key.
_LOOK = r"""
for n in "$@"; do
  openssl s_client -connect 127.0.0.1:443 -servername $n </dev/null 2>/dev/null >/tmp/drill.pem
  echo $n $(openssl x509 -in /tmp/drill.pem -noout -fingerprint -sha256 | tr -d : | cut -d= -f2) \
    $(openssl x509 -in /tmp/drill.pem -noout -pubkey | openssl pkey -pubin -outform DER |
      openssl dgst -sha256 -r | cut -d' ' -f1)
done; rm -f /tmp/drill.pem
"""
# Every file with a certificate or a key: what it is, its file, and the hash of its key.
_SWEEP = r"""
grep -rlsE -e '-----BEGIN (CERTIFICATE|.*PRIVATE KEY)-----' /etc /root /srv /var /home /tmp |
while read -r f; do
  if grep -q 'PRIVATE KEY-----' "$f"; then kind=key
    hash=$(openssl pkey -in "$f" -pubout -outform DER 2>/dev/null | openssl dgst -sha256 -r)
  else kind=$(openssl x509 -in "$f" -noout -fingerprint -sha256 | tr -d : | cut -d= -f2)
    hash=$(openssl x509 -in "$f" -noout -pubkey | openssl pkey -pubin -outform DER |
      openssl dgst -sha256 -r)
  fi; echo ${kind:-none} "$f" ${hash%% *}
done
"""


@dataclass(frozen=True)
class Bad:
    """A certificate whose key got out: where it lies, and its file as PEM."""

    name: str
    key: int
    hosts: tuple[str, ...]
    pem: str

    @property
    def short(self) -> str:
        return self.name.partition(".")[0]

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.pem.encode()).serial_number

    @property
    def fingerprint(self) -> str:
        der = x509.load_pem_x509_certificate(self.pem.encode())
        return der.fingerprint(hashes.SHA256()).hex()


@dataclass
class Drill:
    """The fleet: its lost certificates, the hashes of their keys, and one that is nobody's."""

    lab: Lab
    hosts: Sequence[Host]
    folder: Path
    lost: list[Bad] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    own: list[Bad] = field(default_factory=list)

    def key_of(self, one: Bad) -> str:
        """The hash of a certificate's key, as openssl has it."""
        path, spki = self.folder / "one.pem", self.folder / "one.spki"
        path.write_text(one.pem)
        (self.folder / "one.pub").write_text(openssl("x509", "-in", path, "-noout", "-pubkey"))
        openssl("pkey", "-pubin", "-in", self.folder / "one.pub", "-outform", "DER", "-out", spki)
        return openssl("dgst", "-sha256", "-r", spki).split()[0]

    def names(self, host: Host) -> list[str]:
        return [one.name for one in (*self.lost, *self.own) if host.name in one.hosts]

    def served(self, host: Host) -> Mapping[str, tuple[str, str]]:
        """What a host serves for each of its names: fingerprint, and hash of the key."""
        said = host.run(["sh", "-c", _LOOK, "sh", *self.names(host)], timeout_s=120).stdout
        lines = (line.split() for line in said.splitlines())
        return {name: (found[0].lower(), found[1]) for name, *found in lines}

    def sweep(self, host: Host) -> list[tuple[str, str, str]]:
        """Every file of a host with a certificate (by fingerprint) or a key, of the lost keys."""
        said = host.run(["sh", "-c", _SWEEP], timeout_s=120).stdout
        found = [tuple(line.split()) for line in said.splitlines()]
        return [(kind.lower(), path, key) for kind, path, key in found if key in self.keys]

    def file(self, host: Host, short: str) -> bytes:
        """A certificate's file as it is now, whatever the host is doing."""
        return self.place(host, short).read_bytes()

    def place(self, host: Host, short: str) -> Path:
        """Where this machine sees a certificate's file, as long as the host stays up or down."""
        leader = host.leader()
        root = Path(f"/proc/{leader}/root") if leader is not None else host.root
        return root / FOLDER.lstrip("/") / f"{short}.pem"

    def revocations(self) -> Path:
        """The authority's list, as PEM, its signature good by openssl."""
        root, der, crl = (self.folder / name for name in ("root.pem", "crl.der", "crl.pem"))
        first = ("-H", self.hosts[0].name, "ssl", "authority")
        root.write_text(support.hostler(self.lab, *first, "show", "--pem"))
        service = authority_pb2_grpc.CertificateAuthorityServiceStub
        pair = support.Pair.of(self.lab.pki, "admin")
        with support.channel(self.lab, self.hosts[0], "ssl", pair) as channel:
            request = authority_pb2.GetRevocationListRequest()
            der.write_bytes(service(channel).GetRevocationList(request, timeout=60).crl)
        said = openssl("crl", "-inform", "DER", "-in", der, "-CAfile", root, "-out", crl)
        assert "verify OK" in said
        return crl

    def refused(self, crl: Path, pem: str) -> bool:
        """Whether openssl takes a certificate for revoked; else it must take it for good."""
        path = self.folder / "one.pem"
        path.write_text(pem)
        asked = ("verify", "-crl_check", "-CAfile", self.folder / "root.pem", "-CRLfile", crl, path)
        on_it = f"{serial_of(path)}" in openssl("crl", "-in", crl, "-noout", "-text").upper()
        said = openssl(*asked, fails=on_it)
        assert ("certificate revoked" in said) == on_it, said
        return on_it


def serial_of(path: Path) -> str:
    return openssl("x509", "-in", path, "-noout", "-serial").strip().removeprefix("serial=")


@contextmanager
def drill(lab: Lab, hosts: Sequence[Host], folder: Path, count: int, keys: int) -> Iterator[Drill]:
    """A fleet of `count` certificates by `keys` keys; every fourth lies on two hosts."""
    one = Drill(lab, hosts, folder)
    with ExitStack() as stack:
        stack.enter_context(authority_on(hosts[0]))
        first = ("-H", hosts[0].name, "--yes", "ssl", "authority", "init", "--name", "Drill CA")
        support.hostler(lab, *first)
        made = [ec.generate_private_key(ec.SECP256R1()) for _ in range(keys + 1)]
        one.keys = [_hash(key) for key in made[:-1]]
        wanted: list[tuple[str, int, tuple[str, ...]]] = [
            (
                f"n{number}.example.net",
                number // 3 % keys,
                tuple(hosts[(number + i) % 3].name for i in range(2 if number % 4 == 3 else 1)),
            )
            for number in range(count)
        ]
        wanted.append(("own.example.net", keys, (hosts[1].name,)))
        *one.lost, last = _issued(lab, hosts[0], made, wanted)
        one.own = [last]
        for host in hosts:
            servers = [_SERVER.format(name=name, short=name.partition(".")[0], folder=FOLDER)
                       for name in one.names(host)]  # fmt: skip
            stack.enter_context(nginx_on(host, _HTTP + "".join(servers) + "}"))
            _fill(one, host, made)
        yield one


def _hash(key: ec.EllipticCurvePrivateKey) -> str:
    import hashlib

    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def _issued(
    lab: Lab, host: Host, keys: Sequence[Any], wanted: Sequence[tuple[str, int, tuple[str, ...]]]
) -> list[Bad]:
    """Have the authority issue all of them, as it did before anybody knew the keys."""
    pair = support.Pair.of(lab.pki, "admin")
    with support.channel(lab, host, "ssl", pair) as channel:
        stub = authority_pb2_grpc.CertificateAuthorityServiceStub(channel)
        calls = []
        for name, key, _ in wanted:
            builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
            names = x509.SubjectAlternativeName([x509.DNSName(name)])
            csr = builder.add_extension(names, critical=False).sign(keys[key], hashes.SHA256())
            der = csr.public_bytes(serialization.Encoding.DER)
            request = authority_pb2.IssueCertificateRequest(profile="server", csr=der)
            calls.append(stub.IssueCertificate.future(request, timeout=120, wait_for_ready=True))
        return [
            Bad(name, key, where, call.result().pem)
            for (name, key, where), call in zip(wanted, calls, strict=True)
        ]


def _fill(one: Drill, host: Host, keys: Sequence[ec.EllipticCurvePrivateKey]) -> None:
    """Put a host's certificates and keys in place by hand, start nginx, declare deployments."""
    mine = [each for each in (*one.lost, *one.own) if host.name in each.hosts]
    for each in mine:
        key = keys[each.key].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        host.put(f"{FOLDER}/{each.short}.pem", each.pem)
        host.put(f"{FOLDER}/{each.short}.key", key, 0o600)
    host.run(["systemctl", "enable", "--now", "nginx.service"])
    pair = support.Pair.of(one.lab.pki, "admin")
    with support.channel(one.lab, host, "ssl", pair) as channel:
        stub = deployments.DeploymentServiceStub(channel)
        for each in mine:
            server = deployment_pb2.DeployedServer(kind="nginx", listeners=["127.0.0.1:443"])
            wanted = deployment_pb2.Deployment(
                name=each.short,
                subject_names=[each.name],
                key=deployment_pb2.DeployedFile(path=f"{FOLDER}/{each.short}.key"),
                full_chain=deployment_pb2.DeployedFile(path=f"{FOLDER}/{each.short}.pem"),
                servers=[server],
            )
            request = deployment_pb2.ApplyDeploymentRequest(deployment=wanted)
            stub.ApplyDeployment(request, timeout=60, wait_for_ready=True)
