"""The gRPC edge of exports and attachments."""

from __future__ import annotations

from typing import Any

import grpc.aio

from hostler.api.storage.v1 import export_pb2 as pb
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.kernel.iscsi import Iscsi
from hostlerd.storage.model import iscsi as model
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.iscsi import Attachment, AttachmentState, Export, ExportState
from hostlerd.storage.plan import iscsi as plan
from hostlerd.storage.plan.graph import build

Context = grpc.aio.ServicerContext[Any, Any]


class ExportService:
    """Serves hostler.api.storage.v1.ExportService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, changing: Changing, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._changing = changing
        self._changes = changes
        self._iscsi = Iscsi(changing.worker)

    async def ListExports(
        self, request: pb.ListExportsRequest, context: Context
    ) -> pb.ListExportsResponse:
        """Answer all exports."""
        found = await self._runtime.blocking(self._iscsi.exports)
        return pb.ListExportsResponse(exports=[_export(one) for one in found])

    async def ApplyExport(
        self, request: pb.ApplyExportRequest, context: Context
    ) -> pb.ApplyExportResponse:
        """Export a device, or change how."""
        asked = request.export
        wanted = plan.Wanted(
            name=asked.name,
            device=asked.device,
            portal=asked.portal,
            initiators=tuple(asked.initiators),
            chap_user=asked.chap_user,
            chap_secret_file=asked.chap_secret_file,
            new_secret=request.new_secret,
            force=request.force,
        )

        def make_plan() -> Plan:
            seen = self._kernel.look()
            return plan.apply(wanted, build(seen), self._iscsi.exports(), seen.hostname)

        done = await self._changes.carry_out(request.change, make_plan)
        made: Export = done.plan.result
        told = [self._changing.take_answer(step).get("secret", "") for step in done.plan.steps]
        return pb.ApplyExportResponse(
            change=done.change,
            target=made.target,
            wwn=made.unit_wwn,
            chap_secret="" if request.change.validate_only else "".join(told),
        )

    async def DeleteExport(
        self, request: pb.DeleteExportRequest, context: Context
    ) -> pb.DeleteExportResponse:
        """End an export."""
        done = await self._changes.carry_out(
            request.change,
            lambda: plan.delete(request.name, request.force, self._iscsi.exports()),
        )
        return pb.DeleteExportResponse(change=done.change)


class AttachmentService:
    """Serves hostler.api.storage.v1.AttachmentService."""

    def __init__(
        self, runtime: Runtime, kernel: Kernel, changing: Changing, changes: Changes
    ) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._changes = changes
        self._iscsi = Iscsi(changing.worker)

    async def ListAttachments(
        self, request: pb.ListAttachmentsRequest, context: Context
    ) -> pb.ListAttachmentsResponse:
        """Answer all attachments."""
        found: pb.ListAttachmentsResponse = await self._runtime.blocking(self._list)
        return found

    async def ApplyAttachment(
        self, request: pb.ApplyAttachmentRequest, context: Context
    ) -> pb.ApplyAttachmentResponse:
        """Log in to a target."""
        asked, secret = request.attachment, request.chap_secret
        wanted = Attachment(
            name=asked.name,
            portal=asked.portal,
            target=asked.target,
            initiator=asked.initiator,
            chap_user=asked.chap_user,
            chap_secret_file=asked.chap_secret_file,
            timeout_s=asked.replacement_timeout_seconds,
        )

        def make_plan() -> Plan:
            _refuse_secret(wanted, secret)
            seen = self._kernel.look()
            is_new = bool(secret) and self._iscsi.lend(wanted.name, secret)
            have = self._iscsi.attachments()
            return plan.attach(wanted, have, build(seen), seen.hostname, is_new)

        done = await self._changes.carry_out(request.change, make_plan)
        node = None
        if not request.change.validate_only:
            graph = build(await self._runtime.blocking(self._kernel.look))
            node = plan.device_of(graph, wanted.target)
        return pb.ApplyAttachmentResponse(
            change=done.change, device=node.id if node is not None else ""
        )

    async def DeleteAttachment(
        self, request: pb.DeleteAttachmentRequest, context: Context
    ) -> pb.DeleteAttachmentResponse:
        """Log out of a target."""

        def make_plan() -> Plan:
            graph = build(self._kernel.look())
            return plan.detach(request.name, self._iscsi.attachments(), graph)

        done = await self._changes.carry_out(request.change, make_plan)
        return pb.DeleteAttachmentResponse(change=done.change)

    def _list(self) -> pb.ListAttachmentsResponse:
        seen = self._kernel.look()
        graph = build(seen)
        return pb.ListAttachmentsResponse(
            attachments=[_attachment(one, graph) for one in self._iscsi.attachments()],
            initiator=model.initiator_name(seen.hostname),
        )


def _refuse_secret(wanted: Attachment, secret: str) -> None:
    """Raise InvalidRequest for a secret that cannot be one, before it goes anywhere."""
    faults = []
    if not model.NAME.fullmatch(wanted.name):
        faults.append(Violation("attachment.name", "is no name of an attachment"))
    if secret and not model.SECRET.fullmatch(secret):
        faults.append(Violation("chap_secret", "must be 12 to 64 visible characters of ASCII"))
    if secret and wanted.chap_secret_file:
        faults.append(Violation("chap_secret", "is in a file already"))
    if faults:
        raise InvalidRequest.of(faults)


def _export(state: ExportState) -> pb.ExportEntry:
    one = state.export
    return pb.ExportEntry(
        export=pb.Export(
            name=one.name,
            device=one.link,
            portal=one.portal,
            initiators=one.initiators,
            chap_user=one.chap_user,
            chap_secret_file=one.chap_secret_file,
        ),
        target=one.target,
        wwn=one.unit_wwn,
        up=state.is_up,
        message=state.message,
        sessions=state.sessions,
    )


def _attachment(state: AttachmentState, graph: Graph) -> pb.AttachmentEntry:
    one, node = state.attachment, plan.device_of(graph, state.attachment.target)
    return pb.AttachmentEntry(
        attachment=pb.Attachment(
            name=one.name,
            portal=one.portal,
            target=one.target,
            initiator=one.initiator,
            chap_user=one.chap_user,
            chap_secret_file=one.chap_secret_file,
            replacement_timeout_seconds=one.timeout_s,
        ),
        session=state.session,
        device="" if node is None else node.id,
        size_bytes=0 if node is None else node.size_bytes,
        running=node is not None and node.state == "running",
    )
