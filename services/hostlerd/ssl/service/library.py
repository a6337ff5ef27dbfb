"""The gRPC edge of libraries."""

from __future__ import annotations

from typing import Any

import grpc.aio

from hostler.api.ssl.v1 import library_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.ssl.kernel.reading import Reader
from hostlerd.ssl.model.library import Library, LibraryUser, Linkage, Use
from hostlerd.ssl.plan.libraries import Selection, select
from hostlerd.ssl.service import convert, pages

_PAGE, _PAGE_MOST, _CHARS_MOST = 10_000, 50_000, 100
_LINKAGES = {
    Linkage.SHARED: pb.LIBRARY_LINKAGE_SHARED,
    Linkage.BUNDLED: pb.LIBRARY_LINKAGE_BUNDLED,
    Linkage.STATIC: pb.LIBRARY_LINKAGE_STATIC,
}
_USES = {
    Use.UNKNOWN: pb.LIBRARY_USE_UNSPECIFIED,
    Use.TLS: pb.LIBRARY_USE_TLS,
    Use.CRYPTO: pb.LIBRARY_USE_CRYPTO,
}

Context = grpc.aio.ServicerContext[Any, Any]


class LibraryService:
    """Serves hostler.api.ssl.v1.LibraryService."""

    def __init__(self, runtime: Runtime, reader: Reader) -> None:
        self._runtime = runtime
        self._reader = reader

    async def ListLibraryUsers(
        self, request: pb.ListLibraryUsersRequest, context: Context
    ) -> pb.ListLibraryUsersResponse:
        """Answer a page of the processes."""
        size, after = pages.checked(request.page_size, request.page_token, _PAGE, _PAGE_MOST)
        _check(request)
        static = request.static_copies
        users, unseen = await self._runtime.blocking(lambda: self._reader.libraries(static=static))
        wanted = Selection(request.stale, request.library, request.fixed_in)
        found, token = pages.page(select(users, wanted), _key, after, size)
        return pb.ListLibraryUsersResponse(
            users=[_user(each) for each in found],
            next_page_token=token,
            warnings=[convert.warning(each) for each in unseen],
        )


def _check(request: pb.ListLibraryUsersRequest) -> None:
    faults = [
        Violation(name, f"must have at most {_CHARS_MOST} characters")
        for name in ("library", "fixed_in")
        if len(getattr(request, name)) > _CHARS_MOST
    ]
    if request.fixed_in and not any(c.isdigit() for c in request.fixed_in):
        faults.append(Violation("fixed_in", "is not a version"))
    if faults:
        raise InvalidRequest.of(faults)


def _key(user: LibraryUser) -> str:
    return f"{user.unit}\0{user.pid:010}"


def _user(of: LibraryUser) -> pb.LibraryUser:
    return pb.LibraryUser(
        pid=of.pid,
        comm=of.comm,
        unit=of.unit,
        container=of.container,
        user=of.user,
        libraries=[_library(each) for each in of.libraries],
        use=_USES[of.use],
        network=of.network,
    )


def _library(of: Library) -> pb.MappedLibrary:
    return pb.MappedLibrary(
        family=of.family,
        library=of.library,
        path=convert.text(of.path),
        version=of.version,
        package_version=of.package_version,
        linkage=_LINKAGES[of.linkage],
        stale=of.stale,
        reason=of.reason,
    )
