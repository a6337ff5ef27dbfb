"""Other scanners, run as processes of their own: what each says, in the same words.

sslyze is in an environment of its own, below build/peers; packaging/prepare makes it.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from scan_servers import Server

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.ciphers import SSL2_SUITES, suites
from hostler.core.ssl.scan.report import Report

SSLSCAN = "/usr/bin/sslscan"
SSLYZE = Path(__file__).parents[2] / "build/peers/bin/sslyze"
TESTSSL = "/usr/bin/testssl"
_BY_NAME = {each.name: each.number for each in (*suites().values(), *SSL2_SUITES.values())}
_PATIENCE_S = 3600


@dataclass
class Found:
    """Cipher suites by version, and what else a scanner tells; None is what it does not.

    `versions` are told by testssl.sh, apart from their suites.
    """

    suites: dict[str, frozenset[int]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    versions: set[str] = field(default_factory=set)
    groups: frozenset[str] | None = None
    fallback: bool | None = None
    compression: bool | None = None
    renegotiation: bool | None = None
    secure_renegotiation: bool | None = None
    heartbleed: bool | None = None
    ccs: bool | None = None
    robot: bool | None = None


def _run(argv: list[str]) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S
    )
    return done.stdout


def of_report(report: Report) -> Found:
    """What we say, in those words."""
    supported = report.supported()
    groups: set[str] = set()
    if report.groups is not None:
        numbers = (*report.groups.tls13, *report.groups.ecdhe)
        groups = {words.group_name(n).lower().removesuffix("tls13") for n in numbers}
    return Found(
        {words.version_name(v): frozenset(each.suites) for v, each in supported.items()},
        {
            words.version_name(v): each.suites[0]
            for v, each in supported.items()
            if each.order == "server"
        },
        set(map(words.version_name, supported)),
        frozenset(groups),
        report.fallback,
        None if report.compression is None else bool(report.compression),
        report.renegotiation,
        None if report.features is None else report.features.secure_renegotiation,
        report.heartbleed,
        report.ccs_injection,
        None if report.robot is None else report.robot.verdict.endswith("oracle"),
    )


def sslscan(server: Server) -> Found:
    """Ask sslscan; it tells of one TLS 1.3 group at a time and of no CCS or ROBOT."""
    starttls = {"": [], "postgres": ["--starttls-psql"]}
    argv = [
        *(SSLSCAN, "--xml=-", "--no-colour", f"--sni-name={server.name}"),
        *starttls.get(server.starttls, [f"--starttls-{server.starttls}"]),
        f"127.0.0.1:{server.port}",
    ]
    return read_sslscan(_run(argv))


def read_sslscan(text: str) -> Found:
    test = ElementTree.fromstring(text).find("ssltest")  # noqa: S314 - of a program of our own
    found = Found()
    if test is None:
        return found
    by_version: dict[str, set[int]] = {}
    for each in test.iter("cipher"):
        version, number = each.attrib["sslversion"], int(each.attrib["id"], 16)
        by_version.setdefault(version, set()).add(number)
        if each.attrib["status"] == "preferred":
            found.first[version] = number
    found.suites = {version: frozenset(numbers) for version, numbers in by_version.items()}
    groups = {each.attrib["name"].split(" ")[0].lower() for each in test.iter("group")}
    found.groups = frozenset(groups)
    for each in test.iter("renegotiation"):
        # "supported" means that of a server which begins it; "secure" is the extension.
        found.secure_renegotiation = each.attrib["secure"] == "1"
    for each in test.iter("fallback"):
        found.fallback = each.attrib["supported"] == "1"
    for each in test.iter("compression"):
        found.compression = each.attrib["supported"] == "1"
    bleeding = [each.attrib["vulnerable"] == "1" for each in test.iter("heartbleed")]
    found.heartbleed = any(bleeding) if bleeding else None
    return found


def sslyze(servers: Sequence[Server], *, slowly: bool) -> dict[str, Found]:
    """Ask sslyze for servers with the same STARTTLS in one run; answers by label.

    `slowly` has it make few connections at once.
    """
    starttls = ["--starttls", servers[0].starttls] if servers[0].starttls else []
    argv = [str(SSLYZE), "--json_out=-", f"--sni={servers[0].name}", *starttls]
    argv += ["--slow_connection"] if slowly else []
    said = _run([*argv, *(f"127.0.0.1:{each.port}" for each in servers)])
    results = json.loads(said[said.index("{") :])["server_scan_results"]
    by_port = {each["server_location"]["port"]: each["scan_result"] for each in results}
    return {each.label: read_sslyze(by_port.get(each.port)) for each in servers}


def read_sslyze(scan: Any) -> Found:
    found = Found()
    if scan is None:
        return found
    for key, version in (
        *(("ssl_3_0", "SSLv3"), ("tls_1_0", "TLSv1.0"), ("tls_1_1", "TLSv1.1")),
        *(("tls_1_2", "TLSv1.2"), ("tls_1_3", "TLSv1.3")),
    ):
        result = scan[f"{key}_cipher_suites"]["result"]
        accepted = result["accepted_cipher_suites"] if result else []
        numbers = {_BY_NAME[each["cipher_suite"]["name"]] for each in accepted}
        if numbers:
            found.suites[version] = frozenset(numbers)
    curves = _result(scan, "elliptic_curves")
    if curves is not None:
        supported = curves["supported_curves"] or []
        found.groups = frozenset(each["name"].lower() for each in supported)
    found.compression = _flag(scan, "tls_compression", "supports_compression")
    found.fallback = _flag(scan, "tls_fallback_scsv", "supports_fallback_scsv")
    found.heartbleed = _flag(scan, "heartbleed", "is_vulnerable_to_heartbleed")
    found.ccs = _flag(scan, "openssl_ccs_injection", "is_vulnerable_to_ccs_injection")
    found.renegotiation = _flag(
        scan, "session_renegotiation", "is_vulnerable_to_client_renegotiation_dos"
    )
    found.secure_renegotiation = _flag(
        scan, "session_renegotiation", "supports_secure_renegotiation"
    )
    robot = _result(scan, "robot")
    if robot is not None:
        found.robot = robot["robot_result"].startswith("VULNERABLE")
    return found


def _result(scan: Any, check: str) -> Any:
    return (scan.get(check) or {}).get("result")


def _flag(scan: Any, check: str, name: str) -> bool | None:
    result = _result(scan, check)
    return None if result is None else bool(result[name])


TESTSSL_CHECKS = ("-p", "-E", "-R", "-H", "-I", "-C", "-Z", "-BB")


def testssl(server: Server, checks: Sequence[str] = TESTSSL_CHECKS) -> Found:
    """Ask testssl.sh, which takes minutes; with the check "-p" alone some seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        starttls = ["-t", server.starttls] if server.starttls else []
        argv = [
            *(TESTSSL, "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1"),
            *(*checks, "--sneaky", "--jsonfile", str(out)),
        ]
        _run([*argv, *starttls, f"{server.name}:{server.port}"])
        return read_testssl(json.loads(out.read_text()))


_TESTSSL_VERSIONS = {
    "SSLv2": "SSLv2",
    "SSLv3": "SSLv3",
    "TLS1": "TLSv1.0",
    "TLS1_1": "TLSv1.1",
    "TLS1_2": "TLSv1.2",
    "TLS1_3": "TLSv1.3",
}


def read_testssl(rows: list[dict[str, str]]) -> Found:
    found = Found()
    by_version: dict[str, set[int]] = {}
    words_of = {name.lower().replace("sslv", "ssl"): to for name, to in _TESTSSL_VERSIONS.items()}
    for row in rows:
        # Such as "cipher-tls1_2_xc030".
        match = re.match(r"cipher-((?:ssl|tls)\d(?:_\d)?)_x([0-9a-f]+)$", row["id"])
        if match:
            by_version.setdefault(words_of[match[1]], set()).add(int(match[2], 16))
        if row["id"] in _TESTSSL_VERSIONS and row["finding"].startswith("offered"):
            found.versions.add(_TESTSSL_VERSIONS[row["id"]])
        vulnerable = row["finding"].lower().startswith("vulnerable")
        if row["id"] == "heartbleed":
            found.heartbleed = vulnerable
        elif row["id"] == "CCS":
            found.ccs = vulnerable
        elif row["id"] == "ROBOT":
            found.robot = vulnerable
        elif row["id"] == "secure_renego":
            found.secure_renegotiation = row["finding"].lower().startswith("supported")
    found.suites = {version: frozenset(numbers) for version, numbers in by_version.items()}
    return found


def differences(ours: Found, theirs: Found) -> set[str]:
    """What they say otherwise, one word each; what either does not say is no difference."""
    said: set[str] = set()
    for version in sorted({*ours.suites, *theirs.suites}):
        mine, other = (each.suites.get(version, frozenset()) for each in (ours, theirs))
        said |= {f"{version} only ours: {suites()[n].name}" for n in mine - other}
        said |= {f"{version} only theirs: {suites()[n].name}" for n in other - mine}
        if version in ours.first and version in theirs.first:
            if ours.first[version] != theirs.first[version]:
                said.add(f"{version}: first suite")
    if ours.groups is not None and theirs.groups:
        said |= {f"group only ours: {name}" for name in ours.groups - theirs.groups}
        said |= {f"group only theirs: {name}" for name in theirs.groups - ours.groups}
    for name in (
        *("fallback", "compression", "renegotiation", "secure_renegotiation"),
        *("heartbleed", "ccs", "robot"),
    ):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine is not None and other is not None and mine != other:
            said.add(f"{name}: ours {mine}, theirs {other}")
    return said
