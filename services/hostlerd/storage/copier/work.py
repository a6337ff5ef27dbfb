"""Copies within the host, and looks at what was copied: what runs do."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from hostler.core.copying.burn_in import burn_in
from hostler.core.copying.copy import copy_at, require_free
from hostler.core.copying.manifest import BadManifest
from hostler.core.copying.place import naming
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.staging import left_of
from hostler.core.copying.verify import load_at, verify_at
from hostlerd.privileged.runs import Flag, Run
from hostlerd.storage.copier.roots import place_of
from hostlerd.storage.model.copies import Outcome
from hostlerd.storage.worker.refused import Refused

CopyRun = Run[Outcome, Flag]

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


def see(roots: Sequence[str], source: str, target: str, manifest: bool) -> dict[str, Any]:
    """What is there before a copy. Raises Refused."""
    with refusing(), ExitStack() as stack:
        here, there = (stack.enter_context(place_of(roots, path)) for path in (source, target))
        with naming(source):
            mode = os.stat(here.name, dir_fd=here.folder, follow_symlinks=False).st_mode
        with naming(target):
            require_free(there, [there.name, *([f"{there.name}.manifest"] if manifest else [])])
            left = left_of(there.folder, there.name, _mark(source, manifest))
    return {"kind": _KINDS.get(stat.S_IFMT(mode), "node"), "left": left}


def copy(run: CopyRun, roots: Sequence[str], source: str, target: str, manifest: bool) -> Outcome:
    """Copy; stopped or refused, it leaves nothing. Raises Refused, Stopped."""
    with refusing(), ExitStack() as stack:
        here, there = (stack.enter_context(place_of(roots, path)) for path in (source, target))
        copied = copy_at(
            here,
            there,
            with_manifest=manifest,
            mark=_mark(source, manifest),
            tell=lambda done, total: run.tell(f"copying to {target}", done, total),
        )
    return Outcome(**asdict(copied))


def verify(run: CopyRun, roots: Sequence[str], manifest: str, root: str) -> Outcome:
    """Compare a copy with its manifest. Raises Refused, which says what differs, Stopped."""
    with refusing(), ExitStack() as stack:
        file = stack.enter_context(place_of(roots, manifest))
        try:
            with naming(manifest):
                wanted = load_at(file)
        except BadManifest as e:
            raise Refused("MANIFEST_BAD", f"{manifest}: {e}", path=manifest) from e
        where = root or str(PurePosixPath(manifest).with_name(wanted.root))
        place = stack.enter_context(place_of(roots, where))

        def tell(done: int, total: int) -> None:
            run.tell(f"reading {where}", done, total)

        with naming(where):
            found = verify_at(wanted, place, tell)
    entries = wanted.entries
    if found:
        shown = "; ".join(f"{one.path or where}: {one.message} [{one.code}]" for one in found[:5])
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        words = f"{where} is not what its manifest says: {shown}{more}"
        raise Refused("COPY_DIFFERS", words, path=where, findings=str(len(found)))
    return Outcome(
        entries=len(entries),
        files=sum(bool(one.digest) and one.link_to is None for one in entries),
        size_bytes=sum(one.attributes.size_bytes for one in entries if one.link_to is None),
    )


def burn(run: CopyRun, roots: Sequence[str], folder: str, size_bytes: int, rounds: int) -> Outcome:
    """Put a filesystem to work. Raises Refused, which names what is damaged, Stopped."""

    def tell(done: int, total: int) -> None:
        run.tell(f"writing and reading in {folder}", done, total)

    with refusing(), place_of(roots, f"{folder}/burn-in") as place:
        burnt = burn_in(place, size_bytes, rounds, secrets.randbits(64), tell)
    return Outcome(**asdict(burnt))


@contextmanager
def refusing() -> Iterator[None]:
    """Say a refusal of the library as the program says its own."""
    try:
        yield
    except CopyRefused as e:
        path = e.path.encode(errors="replace").decode()
        message = str(e).encode(errors="replace").decode()
        raise Refused(f"COPY_{e.reason}", message, path=path) from e


def _mark(source: str, manifest: bool) -> bytes:
    return json.dumps({"copy_of": source, "manifest": manifest}).encode()
