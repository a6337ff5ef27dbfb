"""hostler.toml: defaults, tables, faults named by their key."""

import pytest

from hostlerd.runtime.config import Configuration, ConfigurationInvalid, read


def write(tmp_path, text):
    path = tmp_path / "hostler.toml"
    path.write_text(text)
    return path


def test_no_file_means_defaults(tmp_path):
    assert read(tmp_path / "none", "netns") == Configuration()


def test_values_and_the_domains_own_table(tmp_path):
    path = write(
        tmp_path, 'idle_s = 5\n[limits]\nconnections = 9\n[netns.pools.a]\nipv4 = "10.0.0.0/8"\n'
    )
    found = read(path, "netns")
    assert (found.idle_s, found.bounds.connections) == (5.0, 9)
    assert found.domain == {"pools": {"a": {"ipv4": "10.0.0.0/8"}}}
    assert read(path, "firewall").domain == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("idle_s = 0", "idle_s"),
        ('idle_s = "x"', "idle_s"),
        ("[limits]\nconections = 1", "limits.conections"),
        ("[limits]\ncalls = true", "limits.calls"),
        ("netns = 1", "netns"),
        ('management_addresses = "192.0.2.1"', "management_addresses"),
        ("management_addresses = []", "management_addresses"),
        ('management_addresses = ["192.0.2.1/24"]', "management_addresses.*host bits"),
        ('[log]\nlevel = "loud"', "log.level"),
        ("= 1", "hostler.toml"),
    ],
)
def test_faults_are_named(tmp_path, text, named):
    with pytest.raises(ConfigurationInvalid, match=named):
        read(write(tmp_path, text), "netns")
