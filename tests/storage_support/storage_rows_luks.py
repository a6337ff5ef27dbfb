"""Changes of what is enciphered, and how each is disturbed, in a guest: only there is dm-crypt.

What is there then is asked of cryptsetup(8), dmsetup(8) and what the worker has kept.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from journal_rows import Row
from storage_guest import made, shell
from storage_rows import STORAGE, row

from hostler.api.storage.v1 import luks_pb2 as pb

_SERVICE = f"{STORAGE}.LuksService"
_KEY = "/etc/kills.key"
_SAVED = "/var/lib/hostler-storage-worker/saved"
_CLOSED = f"""
printf %s 'correct horse battery staple' > {_KEY}; chmod 600 {_KEY}
rm -rf {_SAVED}; install -d -m 700 $(dirname {_SAVED}) {_SAVED}
cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --key-file {_KEY} $a
"""
_OPEN = f"{_CLOSED}cryptsetup open --key-file {_KEY} $a safe\n"
_SEEN = f"""
settled
held
cryptsetup status safe | grep -E 'is active|is inactive|mode:|device:' | called
dmsetup info -c --noheadings --separator '|' -o name,suspended,tables_loaded | sort
ls -A {_SAVED} | grep '^[.]'
grep -l BackupLuksHeader {_SAVED}/*/about.json 2>/dev/null | grep -q . && echo kept
true
"""


def _seen(place: Any) -> Any:
    """Whether it is open, what the device mapper has, and whether a header is kept."""
    return shell(place, _SEEN).splitlines()


def _luks(name: str, method: str, request: Any, script: str) -> Row:
    before = partial(made, script=script)
    return row(name, f"{_SERVICE}/{method}", request, before, _seen, points=10)


LUKS_ROWS = (
    _luks(
        "open-luks",
        "OpenLuks",
        lambda place: pb.OpenLuksRequest(device=place.called("a"), name="safe", key_file=_KEY),
        _CLOSED,
    ),
    _luks(
        "close-luks",
        "CloseLuks",
        lambda place: pb.CloseLuksRequest(device=place.called("a")),
        _OPEN,
    ),
    _luks(
        "keep-header",
        "BackupLuksHeader",
        lambda place: pb.BackupLuksHeaderRequest(device=place.called("a")),
        _CLOSED,
    ),
)
