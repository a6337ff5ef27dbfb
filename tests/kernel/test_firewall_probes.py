"""What this kernel can do, as the daemon finds it out, and what it says of what is lacking."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_topology import Host, Router, hosts, join

from hostlerd.firewall.errors import NftRejected
from hostlerd.firewall.kernel.probe import PROBES

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    with hosts("router", "client") as names:
        made = Router(names[0])
        made.install(tmp_path / "state", tmp_path / "run")
        join(made, "eth0", Host(names[1]), "eth0")
        yield made


# What is not in every kernel, by the probe that finds it out: nft itself is asked.
NOT_EVERYWHERE = {
    "flowtable": """table inet t {
        flowtable f { hook ingress priority 0; devices = { "lo" }; }
        chain c { type filter hook forward priority 0; ip protocol tcp flow add @f; }
    }""",
    "bridge_conntrack": """table bridge t {
        chain c { type filter hook forward priority 0; ct state new accept; }
    }""",
}


def takes(text: str) -> bool:
    argv = ["/usr/bin/unshare", "-n", "/usr/sbin/nft", "-f", "-"]
    return subprocess.run(argv, input=text, text=True, stderr=subprocess.DEVNULL).returncode == 0


def there() -> str:
    """What probes have to answer here."""
    texts = (NOT_EVERYWHERE.get(p.__name__.removeprefix("probe_")) for p in PROBES)
    return " ".join(str(text is None or takes(text)) for text in texts)


@pytest.mark.parametrize("name", NOT_EVERYWHERE)
def test_what_a_kernel_lacks_is_named(router: Router, name: str) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "flowtable": {"flowtables": [{"name": "fast", "ifnames": ["lo"]}]},
        "bridge_conntrack": {
            "rules": [
                {
                    "id": "answers",
                    "hook": "bridge_forward",
                    "action": "accept",
                    "connection_states": ["established", "related"],
                }
            ]
        },
    }
    if takes(NOT_EVERYWHERE[name]):
        router.apply(name="web", **wanted[name])
        assert router.apply(name="web", **wanted[name]).steps == ()
        return
    with pytest.raises(NftRejected) as caught:
        router.apply(name="web", **wanted[name])
    assert {
        "flowtable": "this kernel has no flowtables",
        "bridge_conntrack": "web/answers: Error: Could not process rule: Protocol error: this "
        "kernel does not track what bridges carry",
    }[name] in caught.value.message
    assert router.exec("/usr/sbin/nft", "list", "ruleset") == ""


PROGRAM = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
from firewall_topology import Router
from hostlerd.firewall.kernel import Kernel
folder = Path(sys.argv[2])
router = Router("self")
router.install(folder / "state", folder / "run")
router.run = lambda work, *args: work(*args)
document = dict(name="web", forwards=[dict(protocol="tcp", port=8080, target_address="10.0.0.2")],
                masquerades=[dict(source="fd00::/64", uplink="eth0")])
print(len(router.apply(**document).steps), len(router.apply(**document).steps))
from hostlerd.firewall.kernel.probe import PROBES
print(*[p().available for p in PROBES])
"""


def test_as_the_daemon_s_own_user_with_one_capability(router: Router) -> None:
    """As hostler-firewall runs: a user of its own, ambient CAP_NET_ADMIN and nothing else."""
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp(prefix="hfw"))
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    support = Path(__file__).parents[1] / "firewall_support"
    try:
        done = subprocess.run(
            [
                *("/usr/sbin/ip", "netns", "exec", router.name, "/usr/bin/setpriv"),
                *("--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"),
                *(f"--{kind}=-all,+net_admin" for kind in ("inh-caps", "ambient-caps")),
                *("--bounding-set=-all,+net_admin", sys.executable, "-c", PROGRAM),
                *(str(support), str(folder)),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        shutil.rmtree(folder)
    assert done.stdout.split("\n")[:2] == ["5 0", there()], done.stderr
    assert router.labels().count("web/forward-tcp-8080") == 2
    assert [router.sysctl(f"net.{n}") for n in ("ipv4.ip_forward", "ipv6.conf.all.forwarding")] == [
        "1",
        "1",
    ]


FORBIDDEN = r"""
from pathlib import Path
from hostlerd.firewall.errors import NftRejected, ScratchUnavailable
from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.kernel.probe import PROBES
# The bound is that of the user namespace which this runs in, and holds for those below it.
Path("/proc/sys/user/max_user_namespaces").write_text("0")
kernel = Kernel({}, Path("/nowhere"), Path("/nowhere"))
for verdict in ("accept", "nonsense"):
    try:
        kernel.check("table inet hostler {\n\tchain a_b {\n\t\t" + verdict + "\n\t}\n}\n")
    except (NftRejected, ScratchUnavailable) as e:
        print(type(e).__name__)
print(*[p().available for p in PROBES])
"""


def test_without_user_namespaces_nft_alone_checks() -> None:
    """A host whose administrator forbids user namespaces."""
    done = subprocess.run(
        ["/usr/bin/unshare", "-Urn", sys.executable, "-c", FORBIDDEN],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    shown = done.stdout.split("\n")[:3]
    others = there().partition(" ")[2]
    assert shown == ["ScratchUnavailable", "NftRejected", f"False {others}"], done.stderr


def test_probes_find_what_this_kernel_has(router: Router) -> None:
    found = [router.run(probe) for probe in PROBES]
    assert " ".join(str(f.available) for f in found) == there(), found
    assert all(f.available or f.reason for f in found)
