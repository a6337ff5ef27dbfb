"""Changes of deployments that are cut off in the middle, and what the next start makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_in_place import InPlace
from journal_backing import backed, backing_of
from ssl_servers import Installer

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.steps import Plan, Step
from hostlerd.ssl.kernel.deployments import Deployments, Settings
from hostlerd.ssl.kernel.installer_client import Installer as Client
from hostlerd.ssl.model.deployment import Deployment, file
from hostlerd.ssl.model.deployment_steps import InstallCertificate, MakeKey, SaveDeployment

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


class Killed(BaseException):
    """Stands for the moment after which the process does nothing more."""


class CutOff(Deployments):
    """Deployments whose process ends in the middle of a step: its effect is there, or not."""

    kind: type = type(None)
    after = False

    @property
    def _ways(self) -> Any:
        return {kind: self._cut(kind, way) for kind, way in super()._ways.items()}

    def _cut(self, kind: type, way: Callable[[Any], None]) -> Callable[[Any], None]:
        def apply(step: Any) -> None:
            if kind is not self.kind:
                way(step)
                return
            if self.after:
                way(step)
            # What comes after it is done by the next process.
            self.kind = type(None)
            raise Killed

        return apply


@pytest.fixture
def installer(tmp_path: Path) -> Iterator[Installer]:
    made = Installer(tmp_path)
    (tmp_path / "ssl").mkdir()
    made.configure(tmp_path / "ssl")
    made.start()
    yield made
    assert made.process
    made.process.terminate()
    made.process.wait(20)


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        *((SaveDeployment, False), (SaveDeployment, True)),
        *((MakeKey, False), (MakeKey, True), (InstallCertificate, False)),
    ],
)
async def test_records_and_keys_are_as_before_and_installations_are_told(
    tmp_path: Path, installer: Installer, kind: type, after: bool
) -> None:
    kernel = CutOff(tmp_path / "state", Client(installer.socket), Settings())
    one = Deployment(
        "web",
        ("a.test",),
        key=file("key", str(tmp_path / "ssl" / "key.pem"), "", "", 0),
        full_chain=file("full_chain", str(tmp_path / "ssl" / "full.pem"), "", "", 0),
    )
    told: list[Any] = []
    backing = backing_of(tmp_path / "daemon")
    backing.recovery.tell(told.append)
    changes = backed(kernel, tmp_path / "daemon", InPlace().blocking, backing)
    steps: tuple[Step, ...] = (SaveDeployment(one), MakeKey(one))
    if kind is InstallCertificate:
        steps = (*steps, InstallCertificate(one, "none"))
    kernel.kind, kernel.after = kind, after
    with pytest.raises(Killed):
        await changes.carry_out(change_pb2.ChangeOptions(), lambda: Plan(steps))
    (done,) = told
    status = Client(installer.socket).status(one, handshake=False)
    if kind is InstallCertificate:
        # Nobody can tell from here; what is in place, the installer says.
        assert done.outcome == change_pb2.OUTCOME_UNKNOWN
        assert kernel.records.load() == {"web": one} and status["waiting_spki_sha256"]
    else:
        assert done.outcome == change_pb2.OUTCOME_INTERRUPTED and "undone" in done.words
        assert kernel.records.load() == {} and status["waiting_spki_sha256"] == ""
    assert status["certificates"] == []
