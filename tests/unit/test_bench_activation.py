"""Which options of the daemon's unit the activation benchmark counts as its sandbox."""

from pathlib import Path

import pytest
from activation import OFF, without_sandbox

UNIT = Path(__file__).parents[2] / "packaging/systemd/hostler-netns.service"

# What makes it this daemon: how it is started, as whom, with which powers and folders.
KEPT = {
    *("Environment", "ExecStart", "LimitNOFILE", "NotifyAccess", "Restart", "RestartSec"),
    *("TimeoutStopSec", "Type"),
    *("User", "Group", "SupplementaryGroups", "UMask", "AmbientCapabilities"),
    *("CapabilityBoundingSet", "RuntimeDirectory", "RuntimeDirectoryMode"),
    *("RuntimeDirectoryPreserve", "StateDirectory", "StateDirectoryMode", "LogsDirectory"),
    *("LogsDirectoryMode", "RemoveIPC", "KeyringMode"),
}


@pytest.fixture
def unit():
    return UNIT.read_text()


def test_every_option_of_the_unit_is_sandbox_or_kept(unit):
    service = unit.partition("[Service]")[2].splitlines()
    keys = {line.partition("=")[0] for line in service if "=" in line and line[0] != "#"}
    assert keys - KEPT - OFF.keys() == set()


def test_the_drop_in_switches_off_what_the_unit_sets(unit):
    lines = without_sandbox(unit).splitlines()
    assert lines[0] == "[Service]"
    assert {"ProtectSystem=no", "SystemCallFilter=", "NoNewPrivileges=no"} <= set(lines)


def test_what_the_unit_does_not_set_is_left_alone():
    assert without_sandbox("[Service]\nProtectHome=yes\n") == "[Service]\nProtectHome=no\n"
