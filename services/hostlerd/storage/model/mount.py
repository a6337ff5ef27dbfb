"""Mounts and swap areas as units of systemd: their grammar, their names and their text.

The daemon that plans and the worker that writes use this one code.
Source: systemd.mount(5), systemd.swap(5), systemd-escape(1), mount(8).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MARKER = (
    "# Made by hostler-storage. Change it with `hostler storage`; what is written here is lost."
)
"""The first line of each unit that is ours. Other units are never touched."""
UNIT_NAME_BYTES_MOST = 255
TIMEOUT_S_MOST = 600
PRIORITY_MOST = 32767
_PLAIN = frozenset((string.ascii_letters + string.digits + ":_.").encode())
_WHERE = re.compile(r"(/[^\x00-\x20\x7f/\\\"'%$]+)+")
#: Links that mean the same device after a boot. Without what systemd would read in another way.
WHAT = re.compile(r"/dev/disk/by-(?:uuid|id)/[A-Za-z0-9][A-Za-z0-9._:+=@-]{0,199}")
#: What Hostler, systemd or the system itself lives in: nothing is mounted below or above these.
_PROTECTED = (
    *("/proc", "/sys", "/dev", "/run", "/etc", "/bin", "/sbin", "/lib", "/lib64"),
    *("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/opt/hostler"),
    *("/var/lib/hostler", "/var/lib/hostler-storage-worker", "/var/log/hostler"),
    *("/var/lib/systemd", "/var/lib/dpkg"),
)

_FLAGS = frozenset(
    {
        *("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async"),
        *("dirsync", "atime", "noatime", "relatime", "strictatime", "nodiratime", "lazytime"),
        *("discard", "nodiscard"),
    }
)
#: Of each of these at most one.
_EITHER = (
    *(("ro", "rw"), ("suid", "nosuid"), ("dev", "nodev"), ("exec", "noexec"), ("sync", "async")),
    *(("atime", "noatime", "relatime", "strictatime"), ("discard", "nodiscard")),
)
_EXT = (
    r"errors=(?:continue|remount-ro|panic)|commit=[0-9]{1,4}|data=(?:ordered|journal|writeback)"
    r"|acl|noacl|user_xattr|barrier=[01]|usrquota|grpquota|prjquota|noload|journal_checksum"
)
_FAT = (
    r"uid=[0-9]{1,10}|gid=[0-9]{1,10}|[fd]?mask=0?[0-7]{3}|umask=0?[0-7]{3}|utf8|flush"
    r"|shortname=(?:lower|win95|winnt|mixed)|iocharset=[a-z0-9-]{1,16}"
)
_BTRFS = (
    r"subvol=/?[A-Za-z0-9@_][A-Za-z0-9@_.+-]*(?:/[A-Za-z0-9@_][A-Za-z0-9@_.+-]*)*"
    r"|subvolid=[0-9]{1,19}|compress(?:-force)?=(?:no|zlib(?::[1-9])?|lzo|zstd(?::[0-9]{1,2})?)"
    r"|autodefrag|degraded|ssd|nossd|space_cache=v2|commit=[0-9]{1,4}|discard=async|acl|noacl"
)
_XFS = (
    r"inode64|logbufs=[2-8]|logbsize=[0-9]{1,3}k|largeio|swalloc|norecovery|nouuid"
    r"|(?:u|g|p)quota|allocsize=[0-9]{1,4}[kmg]"
)
#: What each type takes beside the flags.
TYPES: Mapping[str, re.Pattern[str]] = {
    "ext2": re.compile(_EXT),
    "ext3": re.compile(_EXT),
    "ext4": re.compile(_EXT),
    "xfs": re.compile(_XFS),
    "btrfs": re.compile(_BTRFS),
    "vfat": re.compile(_FAT),
    "exfat": re.compile(_FAT),
    "f2fs": re.compile(r"acl|noacl|user_xattr"),
    "iso9660": re.compile(r"norock|nojoliet|mode=0?[0-7]{3}"),
    "squashfs": re.compile(r"errors=(?:continue|panic)"),
}
#: What nobody asks for by these words: fields say it.
_OURS = re.compile(r"nofail|_netdev")
_PRIORITY = r"[0-9]{1,4}|[12][0-9]{4}|3[01][0-9]{3}|32[0-6][0-9]{2}|327[0-5][0-9]|3276[0-7]"
_SWAP = re.compile(rf"{_OURS.pattern}|discard|pri=(?:{_PRIORITY})")


@dataclass(frozen=True, slots=True)
class Unit:
    """A mount, or a swap area: then `where` is empty and `type` is "swap"."""

    what: str
    where: str
    type: str
    options: tuple[str, ...] = ()
    lasting: bool = True
    """It is there after a boot."""
    timeout_s: int = 0
    """0 for systemd's default."""

    @property
    def name(self) -> str:
        """What systemd calls it."""
        return mount_name(self.where) if self.where else swap_name(self.what)


@dataclass(frozen=True, slots=True)
class State:
    """What there is: a unit of ours or none, and whether it is mounted or swapped to."""

    unit: Unit | None = None
    is_active: bool = False


def escaped(path: str) -> str:
    """A path as systemd escapes it for a unit's name. Source: systemd.unit(5), `--path`."""
    parts = [part for part in path.split("/") if part and part != "."]
    if not parts:
        return "-"
    raw, made = "/".join(parts).encode("utf-8", "surrogateescape"), []
    for at, byte in enumerate(raw):
        if byte == ord("/"):
            made.append("-")
        elif byte not in _PLAIN or (at == 0 and byte == ord(".")):
            made.append(f"\\x{byte:02x}")
        else:
            made.append(chr(byte))
    return "".join(made)


def mount_name(where: str) -> str:
    """The only name that a mount unit of that place may have."""
    return f"{escaped(where)}.mount"


def swap_name(what: str) -> str:
    """The only name that a swap unit of that device may have."""
    return f"{escaped(what)}.swap"


def where_fault(where: str) -> str:
    """Say why nothing is to be mounted there; empty if it may."""
    if not _WHERE.fullmatch(where):
        return (
            "must be an absolute path, without blanks, quotes, backslashes, %, $ or a / at its end"
        )
    if {".", ".."} & set(where.split("/")):
        return "must have no . or .. in it"
    if len(mount_name(where).encode()) > UNIT_NAME_BYTES_MOST:
        return "is too long for the name of a unit"
    for kept in _PROTECTED:
        if where == kept or where.startswith(f"{kept}/") or kept.startswith(f"{where}/"):
            return f"would cover {kept}, or lies in it"
    return ""


def option_faults(kind: str, options: Iterable[str]) -> list[tuple[int, str]]:
    """Say what is wrong with options, by their index; `kind` "" takes those of every type."""
    given, found = list(options), []
    for at, one in enumerate(given):
        patterns = TYPES.values() if not kind else (TYPES[kind],)
        if one not in _FLAGS and not any(each.fullmatch(one) for each in patterns):
            found.append((at, f"is no option that {kind or 'any filesystem'} takes here"))
        elif one in given[:at]:
            found.append((at, "is given twice"))
        elif rival := next((r for r in _rivals(one) if r in given[:at]), ""):
            found.append((at, f"contradicts {rival}"))
    return found


def _rivals(option: str) -> tuple[str, ...]:
    return next((tuple(o for o in each if o != option) for each in _EITHER if option in each), ())


def unit_faults(unit: Unit) -> list[tuple[str, str]]:
    """Say what is wrong with a unit, by field: what the worker holds each one against."""
    found = []
    if not WHAT.fullmatch(unit.what):
        found.append(("what", "must be a link below /dev/disk/by-uuid or /dev/disk/by-id"))
    if not 0 <= unit.timeout_s <= TIMEOUT_S_MOST:
        found.append(("timeout_s", f"must be 0 to {TIMEOUT_S_MOST}"))
    if unit.type == "swap":
        found += [("where", "a swap area has none")] if unit.where else []
        wrong = [one for one in unit.options if not _SWAP.fullmatch(one)]
        found += [("options", "has one that a swap area does not take")] if wrong else []
        return found
    if unit.type not in TYPES:
        return [*found, ("type", f"must be one of {', '.join(TYPES)}")]
    if why := where_fault(unit.where):
        found.append(("where", why))
    asked = [one for one in unit.options if not _OURS.fullmatch(one)]
    found += [(f"options[{at}]", why) for at, why in option_faults(unit.type, asked)]
    return found


def render(unit: Unit, made: str = "") -> str:
    """The text of a unit. `made` is the topmost folder that was made for it."""
    is_swap = unit.type == "swap"
    lines = [MARKER, "[Unit]"]
    lines += [f"Description={'Swap area' if is_swap else unit.where} ({unit.what})", ""]
    lines += ["[Swap]" if is_swap else "[Mount]", f"What={unit.what}"]
    if not is_swap:
        lines += [f"Where={unit.where}", f"Type={unit.type}"]
    lines += [f"Options={','.join(unit.options)}"] if unit.options else []
    lines += [f"TimeoutSec={unit.timeout_s}s"] if unit.timeout_s else []
    if unit.lasting:
        target, how = install(unit)
        lines += ["", "[Install]", f"{'WantedBy' if how == 'wants' else 'RequiredBy'}={target}"]
    # systemd leaves sections alone that begin so.
    lines += ["", "[X-Hostler]", f"Made={made}"] if made else []
    return "\n".join(lines) + "\n"


def install(unit: Unit) -> tuple[str, str]:
    """The target that brings it up at boot, and whether it "wants" or "requires" it."""
    remote = "_netdev" in unit.options
    if unit.type == "swap":
        target = "remote-fs.target" if remote else "swap.target"
    else:
        target = "remote-fs.target" if remote else "local-fs.target"
    return target, "wants" if "nofail" in unit.options else "requires"


def fields_of(text: str) -> dict[str, str]:
    """The fields of a unit's file as "Section.Key"; of one that comes twice the last."""
    found, section = {}, ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and line[0] not in "#;" and "=" in line:
            key, _, value = line.partition("=")
            found[f"{section}.{key.strip()}"] = value.strip()
    return found


def parse(text: str, *, lasting: bool) -> tuple[Unit, str] | None:
    """Read a unit that is ours, and the folder that was made for it; None for another one."""
    if not text.startswith(f"{MARKER}\n"):
        return None
    said = fields_of(text)
    kind = "Swap" if "Swap.What" in said else "Mount"
    seconds = said.get(f"{kind}.TimeoutSec", "0s").removesuffix("s")
    unit = Unit(
        what=said.get(f"{kind}.What", ""),
        where=said.get("Mount.Where", ""),
        type="swap" if kind == "Swap" else said.get("Mount.Type", ""),
        options=tuple(filter(None, said.get(f"{kind}.Options", "").split(","))),
        lasting=lasting,
        timeout_s=int(seconds) if seconds.isdigit() else 0,
    )
    made = said.get("X-Hostler.Made", "")
    # One that somebody has changed by hand is his.
    return (unit, made) if render(unit, made) == text else None


def swap_fits(used_bytes: int, available_bytes: int, others_free_bytes: int) -> bool:
    """Whether memory and the other areas would hold what is in one, with a tenth to spare."""
    return used_bytes <= available_bytes - available_bytes // 10 + others_free_bytes
