"""An inventory of 10,000 certificates and 500 processes with a replaced library, beside tools."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from report import Row
from rounds import in_turn, wait_until

from hostlerd.ssl.errors import ReaderUnavailable
from hostlerd.ssl.kernel.reading import Reader
from hostlerd.ssl.service.observing import Observer

CERTIFICATES, PROCESSES, ROUNDS, BUDGET_S = 10_000, 500, 3, 120.0
# The loop is measured with so many of them, and reckoned up: each costs it the same.
OF_THE_LOOP = 200
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")
LOOP = 'for f in "$0"/0[01][0-9][0-9].pem; do openssl x509 -in "$f" -noout {}; done >/dev/null'
ASKED = "-subject -issuer -enddate -ext subjectAltName -fingerprint -sha256"
SEEN = "grep -lE 'libssl.*[(]deleted[)]' /proc/[0-9]*/maps 2>/dev/null"
TRACED = "lsof -n -P 2>/dev/null | grep -E 'DEL.*libssl' | awk '{print $2}' | sort -u"


def rows() -> list[Row]:
    """Measure both."""
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as place:
        folder = Path(place)
        return [_of_certificates(folder), *_of_processes(folder)]


@contextmanager
def reader(folder: Path, folders: list[str]) -> Iterator[Reader]:
    """A reader of its own, which has read nothing before."""
    path, configuration = folder / "reader.sock", folder / "hostler.toml"
    path.unlink(missing_ok=True)
    configuration.write_text(f"[ssl]\nfolders = {json.dumps(folders)}\n")
    argv = [sys.executable, "-m", "hostlerd.ssl.reader", "--listen", str(path), str(configuration)]
    with subprocess.Popen(argv) as process:
        try:
            wait_until(path.exists, 60, "the reader does not start")
            yield Reader(path)
        finally:
            process.kill()


def _of_certificates(folder: Path) -> Row:
    certificates = folder / "certificates"
    certificates.mkdir()
    _make(certificates)

    def ours() -> float:
        with reader(folder, [str(certificates)]) as asked:
            begun = time.perf_counter()
            made, _ = Observer(asked).inventory(again=False)
            took_s = time.perf_counter() - begun
        found = sum(not one.trusted for one in made.certificates.values())
        if found < CERTIFICATES:
            raise ReaderUnavailable(f"{found} certificates of {CERTIFICATES}")
        return took_s

    def loop() -> float:
        begun = time.perf_counter()
        argv = ["/bin/sh", "-c", LOOP.format(ASKED), str(certificates)]
        subprocess.run(argv, check=True)
        return (time.perf_counter() - begun) * CERTIFICATES / OF_THE_LOOP

    found = in_turn({"ours": ours, "loop": loop}, ROUNDS, BUDGET_S)
    return Row(
        *("ssl_inventory", f"s for {CERTIFICATES:,} certificates"),
        *(tuple(found["ours"]), tuple(found["loop"]), "a loop of openssl x509", 0.2),
    )


def _make(folder: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    for number in range(CERTIFICATES):
        name = f"host{number:04}.example.net"
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1 + number % 400))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = made.public_bytes(serialization.Encoding.PEM)
        (folder / f"{number:04}.pem").write_bytes(pem)


def _of_processes(folder: Path) -> list[Row]:
    copy = folder / "libssl.so.3"
    shutil.copyfile(LIBRARY, copy)
    with ExitStack() as stack:
        mine = set()
        for _ in range(PROCESSES):
            one = stack.enter_context(
                subprocess.Popen(["/bin/sleep", "3600"], env={"LD_PRELOAD": str(copy)})
            )
            stack.callback(one.kill)
            mine.add(one.pid)
        wait_until(lambda: all(_maps(pid, copy) for pid in mine), 120, "libssl is not mapped")
        fresh = folder / "fresh"
        shutil.copyfile(LIBRARY, fresh)
        fresh.rename(copy)

        def ours() -> float:
            begun = time.perf_counter()
            users, _ = asked.libraries(static=False)
            took_s = time.perf_counter() - begun
            _all_of(mine, {u.pid for u in users if any(each.stale for each in u.libraries)})
            return took_s

        def told(words: str) -> float:
            begun = time.perf_counter()
            shown = subprocess.run(["/bin/sh", "-c", words], capture_output=True, check=False)
            took_s = time.perf_counter() - begun
            numbers = shown.stdout.decode().replace("/proc/", "").replace("/maps", "").split()
            _all_of(mine, set(map(int, numbers)))
            return took_s

        peers = {"grep": lambda: told(SEEN)}
        if shutil.which("lsof"):
            peers["lsof"] = lambda: told(TRACED)
        asked = stack.enter_context(reader(folder, []))
        found = in_turn({"ours": ours, **peers}, 5, BUDGET_S)
    names = {"grep": "grep in /proc/*/maps", "lsof": "lsof"}
    metric = f"s for {PROCESSES} processes of a replaced libssl"
    return [
        Row("ssl_inventory", metric, tuple(found["ours"]), tuple(found[peer]), names[peer])
        for peer in peers
    ]


def _maps(pid: int, path: Path) -> bool:
    return str(path) in Path(f"/proc/{pid}/maps").read_text()


def _all_of(wanted: set[int], found: set[int]) -> None:
    if not wanted <= found:
        raise ReaderUnavailable(f"{len(wanted - found)} processes were not found")
