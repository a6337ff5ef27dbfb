"""Random graphs of CAs: the good paths that are found are exactly those that there are."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from certificates import DAY, Spec, ca, der, leaf

from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.judge import judge
from hostler.core.ssl.paths import DEFAULT_DEPTH, MOST_PATHS

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
GRAPHS = 3000 if SOAK else 60
# One edge: from which CA to which, and the certificate of the second by the first.
Edge = tuple[int, int, Spec]
_FLAWS: tuple[dict[str, object], ...] = (
    {"ends": -DAY / 2},
    {"starts": DAY},
    {"ca": False},
    {"uses": ("crl_sign",)},
    {"signer": "a forger"},
)


def ways(edges: list[Edge], at: int, seen: tuple[int, ...]) -> Iterator[tuple[bytes, ...]]:
    """Every way up from a CA to the root, CA 0, that enters none twice: plain recursion."""
    for above, below, spec in edges:
        if below == at and above not in seen:
            if above == 0:
                yield (der(spec),)
            for rest in ways(edges, above, (*seen, above)) if above else ():
                yield (der(spec), *rest)


@pytest.mark.soak
@pytest.mark.timeout(1800 if SOAK else 120)
def test_every_good_path_of_a_graph_is_found_and_no_other() -> None:
    chance = random.Random(None if SOAK else 11)  # noqa: S311 # the same graphs every time
    counted = {"none": 0, "one": 0, "several": 0}
    for number in range(GRAPHS):
        size = chance.randint(2, 6)
        names = [f"{number} CA {n}" for n in range(size)]
        # Of their names and keys each edge makes a certificate.
        heads = [ca(name) for name in names]
        good: list[Edge] = []
        bad: list[Spec] = []
        for _ in range(chance.randint(size, 3 * size)):
            above, below = chance.randrange(size), chance.randrange(1, size)
            if above == below:
                continue
            if chance.random() < 0.35:
                bad.append(ca(names[below], heads[above], **chance.choice(_FLAWS)))
            else:
                good.append((above, below, ca(names[below], heads[above])))
        bottom = leaf(heads[size - 1])
        given = [spec for _, _, spec in good] + bad
        chance.shuffle(given)
        read = Certificate.read
        judged = judge(
            read(der(bottom)), [read(der(spec)) for spec in given], [read(der(heads[0]))]
        )
        want = {(der(bottom), *way, der(heads[0])) for way in ways(good, size - 1, (size - 1,))}
        found = [tuple(c.data for c in path.certificates) for path in judged.good]
        assert len(found) == len(set(found))
        assert set(found) <= want
        assert len(found) == min(len(want), MOST_PATHS)
        assert judged.verdict.ok is bool(want)
        if found and len(want) < MOST_PATHS:
            assert len(found[0]) == min(map(len, want))
        counted["none" if not want else "one" if len(want) == 1 else "several"] += 1
        assert size <= DEFAULT_DEPTH
    # All three kinds of graphs are among them.
    assert min(counted.values()) >= GRAPHS // 10
