"""`hostler isolate NAME --remove` leaves what was there before, in whatever state it finds things.

Every way of breaking an isolation is done by hand on the host, with the host's own tools.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
from hosts_client import answers, cli, fetch, remove
from hosts_witness import eventually, ip_json, links, names_of_netns, snapshot, untouched

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

COMMAND = ["isolate", "web", "--publish", "8080:8000", "--private-tmp", "--user", "www-data"]
SERVER = ["python3", "-m", "http.server", "8000"]
LISTING = "Directory listing for /"


def isolate(lab: Lab, hosts: str = "h1") -> dict[str, dict]:
    return answers(lab, "-H", hosts, "--yes", *COMMAND, "--", *SERVER)


def serves(host: Host) -> bool:
    return LISTING in fetch(f"http://{host.ipv4}:8080/")


def host_link(host: Host) -> str:
    (name,) = links(host) - {"lo", "host0"}
    return str(name)


@pytest.fixture
def clean(lab: Lab, hosts: tuple[Host, ...]) -> Iterator[None]:
    """Whatever a test leaves is removed, and the hosts are then what they were."""
    with untouched(*hosts):
        yield
        remove(lab, "web")


def test_three_hosts_are_what_they_were(lab: Lab, hosts: tuple[Host, ...], clean: None) -> None:
    with untouched(*hosts):
        isolate(lab, "all")
        for host in hosts:
            assert eventually(lambda host=host: serves(host))
            seen = snapshot(host)
            assert [n["name"] for n in seen["ip netns"]] == ["web"]
            assert any(u.startswith("hostler-run-web") for u in seen["units"])
            assert seen["nft"]
            assert "/run/netns/web" in seen["/run/netns"]
        removed = answers(lab, "-H", "all", "--yes", "isolate", "web", "--remove")
        assert all(a["result"]["changed"] for a in removed.values())
        again = answers(lab, "-H", "all", "--yes", "isolate", "web", "--remove")
        assert not any(a["result"]["changed"] for a in again.values())
        assert "nothing there" in cli(
            lab, "-H", "h1", "--yes", "isolate", "web", "--remove"
        ).stdout or not any(a["result"]["plan"]["steps"] for a in again.values())
        isolate(lab, "all")
        for host in hosts:
            assert eventually(lambda host=host: serves(host))
        remove(lab, "web")


def main_pid(host: Host) -> str:
    unit = "hostler-run-web.main.service"
    return host.run(["systemctl", "show", "-P", "MainPID", unit]).stdout.strip()


def kill_process(host: Host) -> None:
    host.run(["kill", "-9", main_pid(host)])
    time.sleep(0.3)


def stop_unit(host: Host) -> None:
    host.run(["systemctl", "stop", "hostler-run-web.main.service"])


def delete_table(host: Host) -> None:
    host.run(["nft", "delete", "table", "inet", "hostler"])


def flush_ruleset(host: Host) -> None:
    host.run(["nft", "flush", "ruleset"])


def unmount_handle(host: Host) -> None:
    host.run(["umount", "--lazy", "/run/netns/web"])


def delete_handle(host: Host) -> None:
    host.run(["ip", "netns", "delete", "web"])


def delete_veth(host: Host) -> None:
    host.run(["ip", "link", "delete", host_link(host)])


def rename_inside(host: Host) -> None:
    host.run(["ip", "-n", "web", "link", "set", "eth0", "down"])
    host.run(["ip", "-n", "web", "link", "set", "eth0", "name", "other0"])


def forget_records(host: Host) -> None:
    """What the daemons know of it is gone, and they with it: what is left is in the kernel."""
    host.run(["systemctl", "stop", "hostler-netns.service", "hostler-firewall.service"])
    host.run(["sh", "-c", "rm -rf /run/hostler-netns/namespaces/* /run/hostler-netns/processes/*"])


def torn_record(host: Host) -> None:
    found = host.run(["find", "/run/hostler-netns", "-name", "web*.json"]).stdout.split()
    assert len(found) == 2
    for path in found:
        host.run(["truncate", "-s", "10", path])


def kill_daemons(host: Host) -> None:
    for unit in ("hostler-netns.service", "hostler-firewall.service", "hostler-launcher.service"):
        host.run(["systemctl", "kill", "-s", "KILL", unit], check=False)


def everything(host: Host) -> None:
    for harm in (kill_process, delete_table, delete_veth, delete_handle, kill_daemons):
        harm(host)


@pytest.mark.parametrize(
    "harm",
    [
        kill_process,
        stop_unit,
        delete_table,
        flush_ruleset,
        unmount_handle,
        delete_handle,
        delete_veth,
        rename_inside,
        forget_records,
        torn_record,
        kill_daemons,
        everything,
    ],
)
def test_it_goes_in_any_state(
    lab: Lab, h1: Host, clean: None, harm: Callable[[Host], None]
) -> None:
    with untouched(h1):
        isolate(lab)
        assert eventually(lambda: serves(h1))
        harm(h1)
        remove(lab, "web", hosts="h1")
        assert h1.run(["pgrep", "-fx", " ".join(SERVER)], check=False).stdout == ""


@pytest.mark.parametrize("harm", [kill_process, delete_table, delete_veth])
def test_isolate_again_puts_it_right(
    lab: Lab, h1: Host, clean: None, harm: Callable[[Host], None]
) -> None:
    isolate(lab)
    assert eventually(lambda: serves(h1))
    harm(h1)
    assert not serves(h1)
    done = isolate(lab)
    assert done["h1"]["result"]["changed"]
    assert eventually(lambda: serves(h1))
    assert names_of_netns(h1) == {"web"}
    assert not isolate(lab)["h1"]["result"]["changed"]


def test_without_its_handle_it_is_removed_and_made_anew(lab: Lab, h1: Host, clean: None) -> None:
    isolate(lab)
    assert eventually(lambda: serves(h1))
    delete_handle(h1)
    # A namespace without a handle goes on as long as a process is in it.
    assert serves(h1)
    remove(lab, "web", hosts="h1")
    assert not serves(h1)
    isolate(lab)
    assert eventually(lambda: serves(h1))


def test_a_process_in_a_nameless_namespace_is_brought_back(lab: Lab, h1: Host, clean: None) -> None:
    isolate(lab)
    assert eventually(lambda: serves(h1))
    before = main_pid(h1)
    delete_handle(h1)
    done = isolate(lab)["h1"]["result"]
    assert done["changed"]
    assert "PROCESS_STRAYED" in json.dumps(done)
    assert eventually(lambda: serves(h1))
    inside = h1.run(["stat", "-Lc", "%i", f"/proc/{main_pid(h1)}/ns/net", "/run/netns/web"])
    assert len(set(inside.stdout.split())) == 1
    assert h1.run(["test", "-e", f"/proc/{before}"], check=False).returncode != 0
    assert not isolate(lab)["h1"]["result"]["changed"]


def test_removing_one_leaves_another(lab: Lab, h1: Host, clean: None) -> None:
    isolate(lab)
    with untouched(h1):
        more = ["isolate", "two", "--publish", "8082:8000", "--", *SERVER]
        cli(lab, "-H", "h1", "--yes", *more)
        try:
            assert eventually(lambda: LISTING in fetch(f"http://{h1.ipv4}:8082/"))
            addresses = [
                a["local"]
                for link in ip_json(h1, "addr")
                for a in link["addr_info"]
                if a["local"].startswith("10.213.")
            ]
            assert len(addresses) == len(set(addresses)) == 2
        finally:
            remove(lab, "two", hosts="h1")
    assert eventually(lambda: serves(h1))


def test_a_start_that_fails_leaves_nothing(lab: Lab, h1: Host, clean: None) -> None:
    with untouched(h1):
        for wrong, field in (
            (["--user", "no-such-user", "--", *SERVER], "process.user"),
            (["--", "no-such-command"], "process.argv[0]"),
            (["--uplink", "no-such0", "--", *SERVER], "uplink"),
            (["--pool", "no-such-pool", "--", *SERVER], "ipv4_pool"),
            (["--memory", "4096", "--", *SERVER], "memory_max_bytes"),
        ):
            args = ["-H", "h1", "--yes", "isolate", "web", "--publish", "8080:8000", *wrong]
            error = answers(lab, *args, status=1)["h1"]["error"]
            assert error["code"] in ("INVALID_ARGUMENT", "FAILED_PRECONDITION"), error
            assert any(field in v["field"] for v in error["violations"]), error
