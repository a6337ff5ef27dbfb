"""Units and containers by the paths of cgroups, as systemd and container engines name them."""

import pytest

from hostlerd.tracing.model.cgroup import container_of, unit_of

DIGITS = b"0123456789abcdef" * 4
SHORT = b"0123456789ab"


@pytest.mark.parametrize(
    ("path", "unit", "container"),
    [
        (b"/", b"", b""),
        (b"/system.slice/ssh.service", b"ssh.service", b""),
        (b"/user.slice/user-0.slice/session-1.scope", b"session-1.scope", b""),
        (
            b"/user.slice/user-1.slice/user@1.service/app.slice/dbus.service",
            b"dbus.service",
            b"",
        ),
        (b"/system.slice/a.service.d/b", b"", b""),
        (b"/docker/" + DIGITS, b"", SHORT),
        (b"/system.slice/docker-" + DIGITS + b".scope", b"docker-" + DIGITS + b".scope", SHORT),
        (b"/machine.slice/libpod-" + DIGITS + b".scope/x", b"libpod-" + DIGITS + b".scope", SHORT),
        (b"/kubepods/besteffort/pod1/" + DIGITS, b"", SHORT),
        (b"/lxc.payload.web/system.slice/x.service", b"x.service", b"web"),
        (b"/lxc/web/init.scope", b"init.scope", b"web"),
        (
            b"/machine.slice/systemd-nspawn@web.service/payload/system.slice/x.service",
            b"x.service",
            b"web",
        ),
        (b"/machine.slice/machine-web.scope", b"machine-web.scope", b"web"),
    ],
)
def test_of_a_path(path, unit, container):
    assert unit_of(path) == unit
    assert container_of(path) == container
