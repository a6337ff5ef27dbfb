"""The table `inet hostler_shadow`, and the note of what it was made of."""

from __future__ import annotations

import json
from pathlib import Path

from hostlerd.firewall.kernel import nft
from hostlerd.firewall.kernel.file import remove_durably, write_durably
from hostlerd.firewall.kernel.text import read, render
from hostlerd.firewall.kernel.transaction import Listed, with_elements
from hostlerd.firewall.model.state import Shadow

TABLE = "hostler_shadow"


class Shadows:
    """Starts and ends the shadow. The note lies where a boot loses it, as the kernel's table is."""

    def __init__(self, run_dir: Path) -> None:
        self._note = run_dir / "shadow.json"

    def read(self) -> Shadow | None:
        """Answer the shadow as it was started, None if there is none."""
        try:
            told = json.loads(self._note.read_text())
            return Shadow(told["text"], told["expire_time"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def start(self, shadow: Shadow) -> None:
        """Put it in place of the one there is. Raises NftRejected, ToolFailed, OSError."""
        # Noted first: a table that nobody knows of would stay for good.
        write_durably(
            self._note, json.dumps({"text": shadow.text, "expire_time": shadow.expire_time})
        )
        nft.load_other(TABLE, _filled(shadow.text))

    def stop(self) -> None:
        """Delete it if it is there. Raises NftRejected, ToolFailed, OSError."""
        nft.load_other(TABLE, "")
        remove_durably(self._note)

    def dynamic_sets(self) -> frozenset[str]:
        """Answer those of its sets that hold what ours of their names do. Raises ToolFailed."""
        if self.read() is None:
            return frozenset()
        # Asked of the kernel: somebody may have deleted the table.
        listed = _as_ours(nft.table_text(TABLE))
        return frozenset(b.name for b in read(listed).get("inet", {}).values() if b.is_dynamic)


def _as_ours(text: str) -> str:
    return text.replace(f"table inet {TABLE} {{", "table inet hostler {", 1)


def _filled(text: str) -> str:
    """Answer the table with what the dynamic sets of ours hold. Raises ToolFailed."""
    blocks = read(_as_ours(text)).get("inet", {}).values()
    holding = {("inet", b.name): nft.elements_text(b.name) for b in blocks if b.is_dynamic}
    listed = Listed(elements=holding)
    filled = render("inet", [with_elements("inet", b, listed) for b in blocks])
    return filled.replace("table inet hostler {", f"table inet {TABLE} {{", 1)
