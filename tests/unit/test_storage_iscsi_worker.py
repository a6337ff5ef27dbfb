"""What the worker keeps of exports and attachments, and what it does not take."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hostlerd.privileged import refused
from hostlerd.storage.exports.__main__ import once, reconcile
from hostlerd.storage.model.iscsi import Attachment, Export
from hostlerd.storage.worker import attachment, export, export_kept
from hostlerd.storage.worker.carry import check
from hostlerd.storage.worker.operations import OPERATIONS
from hostlerd.storage.worker.refused import Refused

H1 = "iqn.2026-01.example.hostler:h1"
EXPORT = Export(
    "leg",
    "/dev/disk/by-id/virtio-leg",
    1 << 26,
    "leg",
    "",
    "iqn.2026-01.example.hostler:h2:leg",
    "10.0.0.12:3260",
    (H1,),
    "leg",
)
ATTACHED = Attachment("leg", "10.0.0.12:3260", EXPORT.target, H1, "leg")
DEVICE = {
    **{"id": "serial-leg", "name": "vdb", "number": "254:16", "size_bytes": 1 << 26},
    **{"disk_sequence": 5, "serial": "leg", "wwn": "", "signatures": []},
}
SECRET = "0123456789abcdef"  # noqa: S105 - of no host


def asked(**changed: Any) -> dict[str, Any]:
    one = {**json.loads(json.dumps(asdict(EXPORT))), **changed}
    return {
        **{"op": "ApplyExport", "export": one, "before": None, "device": DEVICE},
        **{"new_secret": True, "force": False, "mark": "", "goes_back": False},
    }


def test_a_request_as_the_daemon_makes_it_passes_the_grammar() -> None:
    assert check(asked(), OPERATIONS)[0] == "ApplyExport"
    for op in ("ApplyAttachment", "DeleteAttachment"):
        more: dict[str, Any] = {"devices": [], "whatever_came": False}
        if op.startswith("Apply"):
            more = {"attachment": asdict(ATTACHED)}
        before = None if op.startswith("Apply") else asdict(ATTACHED)
        assert check({"op": op, "before": before, **more}, OPERATIONS)[0] == op


@pytest.mark.parametrize(
    "wrong",
    [
        {"link": "/dev/vdb"},
        {"link": "/dev/disk/by-uuid/0f1e"},
        {"link": '/dev/disk/by-id/x", RUN+="/bin/sh'},
        {"link": "/dev/disk/by-id/x,readonly=1"},
        {"link": "/dev/disk/by-id/../../vda"},
        {"name": "../leg"},
        {"target": "iqn.2026-01.example.hostler:../../../core"},
        {"target": "../x"},
        {"target": "iqn.2003-01.org.linux-iscsi.h2:theirs"},
        {"portal": "0.0.0.0:3260"},
        {"portal": "../../x:3260"},
        {"initiators": []},
        {"initiators": ["../x"]},
        {"initiators": [H1, H1]},
        {"chap_user": "a\nb"},
        {"chap_secret_file": "../etc/shadow"},
        {"size_bytes": 0},
        {"more": "than known"},
    ],
)
def test_what_could_lead_elsewhere_is_not_in_the_grammar(wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="export") as caught:
        check(asked(**wrong), OPERATIONS)
    assert caught.value.reason == "INVALID"


@pytest.mark.parametrize(
    "wrong",
    [{"target": "-x"}, {"portal": "h2:3260"}, {"chap_user": "--x y"}, {"timeout_s": 0}],
)
def test_no_argument_of_iscsiadm_is_free(wrong: dict[str, Any]) -> None:
    request = {"op": "ApplyAttachment", "before": None}
    with pytest.raises(Refused, match="attachment"):
        check({**request, "attachment": {**asdict(ATTACHED), **wrong}}, OPERATIONS)


@pytest.mark.parametrize("secret", ["short", "x" * 65, "with blank in it", "new\nline-in-it-x", ""])
def test_a_secret_is_one_word_of_some_length(secret: str) -> None:
    with pytest.raises(refused.Refused) as caught:
        check({"op": "LendSecret", "name": "leg", "secret": secret}, OPERATIONS)
    assert "secret" in caught.value.message and (not secret or secret not in caught.value.message)


def test_definitions_are_root_s_alone_and_a_damaged_one_hides_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    first = export_kept.fresh(EXPORT, SECRET)
    export_kept.write(folder, first)
    second = export_kept.fresh(replace(EXPORT, name="two"), SECRET)
    export_kept.write(folder, second)
    (folder / "bad.json").write_text("{")
    (folder / "other.json").write_text((folder / "leg.json").read_text())
    assert export_kept.read(folder) == {"leg": first, "two": second}
    assert (folder / "leg.json").stat().st_mode & 0o777 == 0o600
    # Written again it is another one to whoever makes it.
    assert export_kept.fresh(EXPORT, SECRET).mark != first.mark
    export_kept.remove(folder, "leg")
    assert set(export_kept.read(folder)) == {"two"}


def test_without_a_target_in_the_kernel_each_export_says_so(tmp_path: Path) -> None:
    folder, report = tmp_path / "exports", tmp_path / "report.json"
    export_kept.write(folder, export_kept.fresh(EXPORT, SECRET))
    failed = once(folder, report, tmp_path / "no target")
    assert set(failed) == {"leg"} and "no target" in failed["leg"]
    assert export_kept.report(report) == failed
    assert reconcile({}, tmp_path / "no target") == {}


def test_rules_name_each_device_and_its_partitions_in_one_line() -> None:
    lines = export.rules([EXPORT]).splitlines()
    assert lines[1:] == [
        'SUBSYSTEM=="block", SYMLINK=="disk/by-id/virtio-leg|disk/by-id/virtio-leg-part*", '
        'ENV{SYSTEMD_READY}="0"'
    ]
    assert len(export.rules([]).splitlines()) == 1


RECORD = """# BEGIN RECORD 2.1.8
node.name = iqn.2026-01.example.hostler:h2:leg
node.session.auth.username = leg
node.session.auth.password = old-secret-of-it
node.session.auth.password_in = another
# END RECORD
"""


def test_a_secret_is_put_into_a_record_in_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "default"
    path.write_text(RECORD)
    path.chmod(0o644)
    attachment._put(path, {"node.session.auth.password": SECRET})
    lines = path.read_text().splitlines()
    assert [one for one in lines if "auth.password " in one] == [
        f"node.session.auth.password = {SECRET}"
    ]
    assert lines[0].startswith("# BEGIN") and lines[-1].startswith("# END")
    assert "node.session.auth.password_in = another" in lines
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_of_secrets_is_root_s_alone_and_of_one_word(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    if path.stat().st_uid == 0:
        assert export_kept.of_file(str(path)) == SECRET
    path.chmod(0o644)
    with pytest.raises(Refused) as caught:
        export_kept.of_file(str(path))
    assert caught.value.reason == "SECRET_UNUSABLE" and SECRET not in caught.value.message
    path.chmod(0o600)
    path.write_text("two\nlines of it")
    with pytest.raises(Refused) as caught:
        export_kept.of_file(str(path))
    assert "lines of it" not in caught.value.message


@pytest.mark.parametrize("secret", [SECRET, ""])
def test_what_is_put_back_has_the_secret_of_before_or_that_of_its_file(
    secret: str, tmp_path: Path
) -> None:
    had = export_kept.fresh(EXPORT, secret)
    # Whoever asks for another one is told that.
    new: Any = {"goes_back": False, "new_secret": True, "mark": had.mark}
    lost, told = export._wanted(EXPORT, had, new)
    assert lost.secret == told and told not in ("", secret)
    export_kept.write(tmp_path, lost)
    back: Any = {**new, "goes_back": True, "new_secret": False}
    again, told = export._wanted(EXPORT, export_kept.read(tmp_path)["leg"], back)
    assert (again.secret, again.previous, told) == (secret, "", "")
    # A kill may have come before anything was written: then nothing of before that counts.
    still, _ = export._wanted(EXPORT, replace(had, previous="older"), back)
    assert still.secret == secret


def test_a_definition_of_before_secrets_were_kept_beside_is_read(tmp_path: Path) -> None:
    one = export_kept.fresh(EXPORT, SECRET)
    said = {key: value for key, value in asdict(one).items() if key != "previous"}
    (tmp_path / "leg.json").write_text(json.dumps(said))
    assert export_kept.read(tmp_path) == {"leg": one}
