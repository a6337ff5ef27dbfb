"""Scans of TLS endpoints beside sslyze, and in the long form testssl.sh, all as commands.

Both are told the same endpoints, of nginx, Apache, lighttpd and HAProxy on loopback, and the same
checks: versions and suites, certificates, curves, extensions, compression, fallback, resumption,
renegotiation, Heartbleed, CCS injection, ROBOT, and the headers of HTTP. Ours also asks for prime
fields and tells what clients would get; beside testssl.sh, which does all it knows, ours does too.
The many are of one nginx, which has only the cores that the scanners leave it. They are scanned
side by side: by sslyze with its own threads, by testssl.sh with a process for each core.
"""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import rounds
from report import Row

TESTS = Path(__file__).parents[1]
sys.path[1:1] = [str(TESTS / "ssl_support"), str(TESTS / "client_support")]

from scan_peers import SSLYZE, TESTSSL  # noqa: E402 - the line above makes them found
from scan_servers import GOOD, Place, apache, haproxy, lighttpd, nginx, place  # noqa: E402
from ssl_process import free_port, running  # noqa: E402

HOSTLER = Path(sys.executable).with_name("hostler")
CLIENT = TESTS.parent / "client"
ROUNDS, BUDGET_S, PATIENCE_S = 3, 120.0, 1800.0
MANY, MANY_BUDGET_S = 200, 900.0
# testssl.sh would take hours for the many.
SOME = 4
# Those that sslyze has as well.
_CHECKS_OF_OURS = (
    *("groups", "certificates", "features", "fallback", "compression", "resumption"),
    *("renegotiation", "heartbleed", "ccs_injection", "robot", "http"),
)
# Without options it does most of them, and with one that it does not know as a check none at all.
_CHECKS = (
    *("--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--certinfo"),
    *("--elliptic_curves", "--compression", "--fallback", "--resum", "--reneg", "--ems"),
    *("--heartbleed", "--openssl_ccs", "--robot", "--early_data", "--http_headers"),
)
# The largest ratios that meet the targets: 5 and 100 times as quick.
AS_SSLYZE, AS_TESTSSL = 1 / 5, 1 / 100


def rows() -> list[Row]:
    """Measure all of it."""
    # What is installed by pip or as a package is compiled, as sslyze is here.
    compileall.compile_dir(CLIENT, quiet=1)
    with place() as at, ExitStack() as stack:
        found = [
            *stack.enter_context(nginx(at)),
            *stack.enter_context(apache(at)),
            *stack.enter_context(lighttpd(at)),
            *stack.enter_context(haproxy(at)),
        ]
        ports = [each.port for each in found]
        measured = rounds.in_turn(
            {"ours": lambda: ours(ports, _CHECKS_OF_OURS), "peer": lambda: sslyze(ports)},
            ROUNDS,
            BUDGET_S,
        )
        told = [_row(f"s for {len(ports)} endpoints, same checks", measured, "sslyze", AS_SSLYZE)]
        if rounds.LONG:
            one = ports[:1]
            measured = {"ours": [ours(one)], "peer": [testssl(one)]}
            told.append(_row("s for one endpoint, all checks", measured, "testssl.sh", AS_TESTSSL))
    with place() as at:
        told += many(at)
    return told


def _row(metric: str, measured: dict[str, list[float]], peer: str, target: float) -> Row:
    return Row("ssl_scan", metric, tuple(measured["ours"]), tuple(measured["peer"]), peer, target)


def many(at: Place) -> list[Row]:
    """200 endpoints in one run; the peers only where there is time for them."""
    ports = [free_port() for _ in range(MANY)]
    listens = "\n".join(f"listen 127.0.0.1:{port} ssl;" for port in ports)
    text = f"""
daemon off; worker_processes 1; pid {at.folder}/pid; error_log {at.folder}/err;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {at.folder}; proxy_temp_path {at.folder};
fastcgi_temp_path {at.folder}; uwsgi_temp_path {at.folder}; scgi_temp_path {at.folder};
server {{ {listens} ssl_ciphers {GOOD}; ssl_protocols TLSv1.2 TLSv1.3;
ssl_certificate {at.pki["ec.pem"]}; ssl_certificate_key {at.pki["ec.key"]};
location / {{ return 200; }} }} }}
"""
    argv = ["/usr/sbin/nginx", "-c", at.write("nginx.conf", text)]
    metric = f"s for {MANY} endpoints in one run, same checks"
    with running(argv, ports[:1], at.log("nginx")):
        if not rounds.LONG:
            return [Row("ssl_scan", metric, (ours(ports, _CHECKS_OF_OURS),), (), "", None)]
        measured = rounds.in_turn(
            {"ours": lambda: ours(ports, _CHECKS_OF_OURS), "peer": lambda: sslyze(ports)},
            ROUNDS,
            MANY_BUDGET_S,
        )
        some = ports[:SOME]
        beside = {"ours": [ours(some)], "peer": [testssl(some)]}
    metric_of_some = f"s for {SOME} endpoints in one run, all checks"
    return [
        _row(metric, measured, "sslyze", AS_SSLYZE),
        _row(metric_of_some, beside, "testssl.sh", AS_TESTSSL),
    ]


def ours(ports: Sequence[int], checks: Sequence[str] = ()) -> float:
    """Answer how long we took; none of the endpoints may have been left out."""
    argv = [str(HOSTLER), "--no-record", "-o", "json", "ssl", "scan", "--name", "localhost"]
    if checks:
        argv += ["--checks", ",".join(checks)]
    took_s, said = _timed([*argv, *_endpoints(ports)])
    answers = json.loads(said)
    if len(answers) != len(ports) or any("failure" in each for each in answers):
        raise RuntimeError("endpoints were not scanned")
    if problems := [each["problems"] for each in answers if each["problems"]]:
        raise RuntimeError(f"checks came to nothing: {problems[:3]}")
    return took_s


def sslyze(ports: Sequence[int]) -> float:
    """Answer how long sslyze took."""
    argv = [str(SSLYZE), "--json_out=-", "--mozilla_config=disable", "--sni=localhost"]
    took_s, said = _timed([*argv, *_CHECKS, *_endpoints(ports)])
    answers = json.loads(said[said.index("{") :])["server_scan_results"]
    if len(answers) != len(ports) or any(each["scan_status"] != "COMPLETED" for each in answers):
        raise RuntimeError("sslyze has left endpoints out")
    # It leaves checks out without a word; it must have done its work.
    done = {each["status"] for answer in answers for each in answer["scan_result"].values()}
    if "NOT_SCHEDULED" in done:
        raise RuntimeError("sslyze has left checks out")
    return took_s


def testssl(ports: Sequence[int]) -> float:
    """Answer how long testssl.sh took with its defaults, which are all of its checks.

    Its own way with many starts all of them at once; one for each core is quicker.
    """
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = list(pool.map(_testssl, ports))
    took_s = time.monotonic() - start
    # It says how long it took at its end, and before that what it found of each check.
    if any(not {"TLS1_2", "heartbleed", "scanTime"} <= each for each in told):
        raise RuntimeError("testssl.sh has left checks out")
    return took_s


def _testssl(port: int) -> set[str]:
    """Scan one endpoint; answers the names of what it found."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        argv = [TESTSSL, "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1"]
        _timed([*argv, "--jsonfile", str(out), f"localhost:{port}"])
        return {each["id"] for each in json.loads(out.read_text())}


def _endpoints(ports: Sequence[int]) -> list[str]:
    return [f"127.0.0.1:{port}" for port in ports]


def _timed(argv: Sequence[str]) -> tuple[float, str]:
    start = time.monotonic()
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S
    )
    return time.monotonic() - start, done.stdout
