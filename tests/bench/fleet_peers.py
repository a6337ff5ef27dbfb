"""Ansible and pyinfra as their users have them: by ssh as root, pipelined, the file then nft -f."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fleet_lab
from client_cost import Command

from hostler.aio import Retry

PEERS = Path(__file__).parents[2] / "build/peers/bin"
# As long as Hostler waits for a host that cannot be reached.
CONNECT_S = int(Retry().connect_s)


def environment(folder: Path) -> dict[str, str]:
    """Where peers keep what is theirs."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(folder)}


def write(made: fleet_lab.FleetLab) -> None:
    """Write inventories, ruleset, playbook and deploy into the lab's folder."""
    folder = made.folder
    (folder / "rules.nft").write_text(fleet_lab.text())
    (folder / "ssh_config").write_text(
        f"UserKnownHostsFile {made.known}\nGlobalKnownHostsFile /dev/null\n"
        f"IdentityFile {made.key}\nIdentitiesOnly yes\n"
    )
    hosts = "".join(f"{host.name} ansible_host={host.ipv4}\n" for host in made.hosts)
    (folder / "inventory.ini").write_text(
        f"{hosts}\n[all:vars]\nansible_user=root\nansible_python_interpreter=/usr/bin/python3\n"
        f"ansible_ssh_common_args=-F {folder}/ssh_config\n"
    )
    load = f"/usr/sbin/nft -f {fleet_lab.FILE}"
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.copy": {"src": f"{folder}/rules.nft", "dest": fleet_lab.FILE},
                "notify": "load",
            }
        ],
        "handlers": [{"name": "load", "ansible.builtin.command": load}],
    }
    # JSON is YAML, too.
    (folder / "book.yml").write_text(json.dumps([play]))
    data = {"ssh_user": "root", "ssh_key": str(made.key), "ssh_known_hosts_file": str(made.known)}
    inventory = [(host.name, {"ssh_hostname": host.ipv4, **data}) for host in made.hosts]
    (folder / "inventory.py").write_text(f"hosts = {inventory!r}\n")
    (folder / "config.py").write_text(f"CONNECT_TIMEOUT = {CONNECT_S}\n")
    (folder / "deploy.py").write_text(
        "from pyinfra.operations import files, server\n"
        f"put = files.put(src='rules.nft', dest={fleet_lab.FILE!r})\n"
        f"server.shell(commands=[{load!r}], _if=put.did_change)\n"
    )


def ansible(made: fleet_lab.FleetLab, forks: int, *, read: bool) -> Command:
    """Ansible with so many forks: a command of the hosts' kernel release, or the playbook."""
    inventory = ["-i", str(made.folder / "inventory.ini"), "-f", str(forks)]
    if read:
        words = ["ansible", *inventory, "all", "-m", "ansible.builtin.command", "-a", "uname -r"]
        answer = re.compile(r"^(h\d+) \| CHANGED \| rc=0")
    else:
        words = ["ansible-playbook", *inventory, str(made.folder / "book.yml")]
        answer = re.compile(r"^(?:ok|changed): \[(h\d+)\]")
    own = {
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_TIMEOUT": str(CONNECT_S),
        "ANSIBLE_LOCAL_TEMP": str(made.folder / "ansible"),
    }
    argv = [str(PEERS / words[0]), *words[1:]]
    return Command(argv, answer, {**environment(made.folder), **own}, made.folder)


def pyinfra(made: fleet_lab.FleetLab, *, read: bool) -> Command:
    """Pyinfra, all hosts at once as it does: a command, or the deploy."""
    argv = [str(PEERS / "pyinfra"), "-y", "inventory.py"]
    argv += ["exec", "--", "uname -r"] if read else ["deploy.py"]
    answer = re.compile(r"\[(h\d+)\].*(?:Success|No changes|Skipped)")
    return Command(argv, answer, environment(made.folder), made.folder)
