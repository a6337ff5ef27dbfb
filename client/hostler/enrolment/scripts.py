"""All that is ever run on a host by ssh: fixed texts, into which nothing is put.

A script goes to `/bin/sh -s` by standard input; a command that reads data has its words here.
Source: what is used is in every Debian (dash, coreutils, dpkg, apt, tar).
"""

from __future__ import annotations

STAGING = "/var/cache/hostler-enroll"
# What an enrolment that was cut off has begun goes on there for a while: the next one waits for it.
LOCK = "/run/hostler-enroll.lock"
SHELL = "/bin/sh -s"
# Reads a tar of packages. The folder is root's own: nobody else can put one beside them.
COPY = (
    f"/bin/sh -c 'umask 022 && exec 9>{LOCK} && flock -w 300 9 && mkdir -p {STAGING} && "
    f"cd {STAGING} && rm -f ./*.deb && "
    "exec tar --extract --no-same-owner --no-same-permissions --file=-'"
)
JOIN = "/usr/lib/hostler/join"

BEGIN, END = "hostler-look 1", "hostler-look end"

_HEAD = """
LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
export LC_ALL PATH DEBIAN_FRONTEND
umask 022
"""

# One fact a line: a word, a blank, and what there is; no line where there is nothing.
LOOK = f"""{_HEAD}
echo "{BEGIN}"
echo "clock $(date +%s)"
echo "uid $(id -u)"
sed -n -e 's/^ID=/os_id /p' -e 's/^VERSION_ID=/os_version /p' -e 's/^PRETTY_NAME=/os_name /p' \\
    /etc/os-release | tr -d '"'
echo "architecture $(dpkg --print-architecture 2>/dev/null)"
[ -d /run/systemd/system ] && echo "systemd yes"
echo "hostname $(cat /proc/sys/kernel/hostname)"
# dpkg takes /opt away with the last package that has anything in it.
df -Pk "$([ -d /opt ] && echo /opt || echo /)" | awk 'NR == 2 {{ print "room_kib /opt", $4 }}'
df -Pk /var | awk 'NR == 2 {{ print "room_kib /var", $4 }}'
dpkg-query -W -f 'package ${{Package}} ${{Version}} ${{db:Status-Status}}\\n' 'hostler-*' \\
    2>/dev/null
for file in {STAGING}/*.deb; do
    [ -f "$file" ] && sha256sum "$file" | sed 's/^/staged /'
done
[ -f /etc/hostler/pki/ca.pem ] && echo "ca $(base64 -w0 </etc/hostler/pki/ca.pem)"
[ -f /etc/hostler/pki/host.pem ] && echo "certificate $(base64 -w0 </etc/hostler/pki/host.pem)"
[ -f /etc/hostler/pki/joining.json ] && echo "joining yes"
for domain in netns storage firewall tracing ssl; do
    if systemctl --quiet is-enabled "hostler-$domain.socket" 2>/dev/null &&
        systemctl --quiet is-active "hostler-$domain.socket"; then
        echo "open $domain"
    fi
done
echo "{END}"
"""

# A configuration that is there stays. What an earlier dpkg has left half done is ended first; where
# another one is at work just now, apt waits for it.
INSTALL = f"""{_HEAD}
exec 9>{LOCK}
flock -w 600 9 || exit 1
cd {STAGING} || exit 0
set -- -y -q -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \\
    -o DPkg::Lock::Timeout=120 --no-install-recommends --allow-downgrades
dpkg --force-confdef --force-confold --configure -a </dev/null >&2
if ! apt-get "$@" install ./*.deb </dev/null >&2 9>&-; then
    apt-get -q update </dev/null >&2 9>&-
    apt-get "$@" install ./*.deb </dev/null >&2 9>&- || exit 1
fi
rm -rf {STAGING}
"""

# Configuration, key, state and logs of Hostler go with its packages.
PURGE = f"""{_HEAD}
exec 9>{LOCK}
flock -w 600 9 || exit 1
rm -rf {STAGING}
dpkg --force-confdef --force-confold --configure -a </dev/null >&2
names=$(dpkg-query -W -f '${{Package}}\\n' 'hostler-*' 2>/dev/null |
    grep -E '^hostler-(netns|storage|firewall|tracing|ssl|common)$') || exit 0
apt-get -y -q -o DPkg::Lock::Timeout=120 purge $names </dev/null >&2 9>&- || exit 1
[ ! -e /etc/hostler/pki ]
"""
