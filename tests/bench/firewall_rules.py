"""10,000 rules and a set of 100,000 elements, beside bare `nft -f` of the same text.

Ours is what the firewall daemon does for a ruleset that has come: observing the host, planning,
the check in a scratch namespace, applying, and noting on disk what was applied; all of it in this
process; what the call around it adds is shown by the rows of the whole way. The peer is
nft(8) with the text that ours compiled, into an empty namespace, each time anew; it looks at
nothing, checks nothing, keeps nothing and notes nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import firewall_whole
from firewall_rulesets import CHANGED, RULES, many
from report import Row
from rounds import in_turn

ROUNDS, BUDGET_S, APART_S = 5, 100.0, 240.0
UNSHARE = ("/usr/bin/unshare", "--net")
NFT = "/usr/sbin/nft"
# The metrics, and the largest ratio that meets the target.
ALL, FEW, SAME = f"ms for all {RULES:,} rules", f"ms for {CHANGED} changed", "ms for the same again"
TARGETS = {ALL: 6.0, FEW: 3.5, SAME: 2.5}


def rows() -> list[Row]:
    """Measure in a process of its own, inside its own namespace."""
    argv = [*UNSHARE, sys.executable, __file__]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=APART_S)
    found = json.loads(done.stdout)
    peer = tuple(found.pop("peer"))
    written = tuple(found.pop("transactions"))
    return [
        *(
            Row("firewall_rules", what, tuple(ours), peer, "nft -f of all", TARGETS[what])
            for what, ours in found.items()
        ),
        Row("firewall_rules", "transactions for the same again", written, target=0.0),
        *firewall_whole.rows(),
    ]


def ms(work: Callable[[], object]) -> float:
    """Answer how long something took, in milliseconds."""
    start = time.monotonic()
    work()
    return (time.monotonic() - start) * 1000


def measure() -> dict[str, list[float]]:
    """Answer by metric our figures, and the peer's."""
    from hostlerd.firewall.kernel import Kernel, nft
    from hostlerd.firewall.kernel.generation import generation
    from hostlerd.firewall.model.document import parse
    from hostlerd.firewall.model.steps import ReplaceTable
    from hostlerd.firewall.plan import change
    from hostlerd.firewall.plan.table import compile_table

    wanted = [parse(many(turn)) for turn in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        kernel = Kernel({}, Path(folder, "state"), Path(folder, "run"))
        whole = Path(folder, "peer.nft")
        whole.write_text(compile_table([wanted[0]], kernel.management))
        turn = 0
        transactions: list[float] = []

        def apply() -> None:
            plan = change.apply(wanted[turn % 2], kernel.observe())
            for step in plan.steps:
                if isinstance(step, ReplaceTable):
                    kernel.check(step.text)
            with kernel.applying() as carry_out:
                for step in plan.steps:
                    carry_out(step)

        def afresh() -> float:
            nonlocal turn
            nft.delete()
            with kernel.applying() as carry_out:
                for step in change.delete("many", kernel.observe()).steps:
                    carry_out(step)
            turn = 0
            return ms(apply)

        def few() -> float:
            nonlocal turn
            turn += 1
            return ms(apply)

        def same() -> float:
            before = generation()
            took = ms(apply)
            transactions.append(float(generation() - before))
            return took

        def peer() -> float:
            argv = [*UNSHARE, NFT, "-f", str(whole)]
            return ms(lambda: subprocess.run(argv, check=True))

        turns = {ALL: afresh, "peer": peer, FEW: few, SAME: same}
        found = in_turn(turns, ROUNDS, BUDGET_S)
    return {**found, "transactions": transactions}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    json.dump(measure(), sys.stdout)
