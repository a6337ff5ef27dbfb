"""One case of a chain: what is given, what RFC 5280 and the CA/B rules say of it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from certificates import Spec, ca, der, leaf
from cryptography import x509

from hostler.core.ssl.judge import Judged, judge_bytes
from hostler.core.ssl.paths import DEFAULT_DEPTH
from hostler.core.ssl.pem import written
from hostler.core.ssl.profile import Profile, Usage
from hostler.core.ssl.verdict import Code


@dataclass(frozen=True)
class Case:
    """A chain and its verdict. `code` None is good; else the code that must be among the reasons.

    `rule` says by which paragraph. Without `name` none is compared.
    """

    id: str
    rule: str
    code: Code | None
    leaf: Spec
    given: Sequence[Spec]
    roots: Sequence[Spec]
    name: str | None = None
    usage: Usage = Usage.SERVER
    profile: Profile = Profile.STRICT
    max_depth: int = DEFAULT_DEPTH

    @property
    def category(self) -> str:
        return self.id.partition("/")[0]

    def judged(self) -> Judged:
        given, roots = ([der(s) for s in specs] for specs in (self.given, self.roots))
        return judge_bytes(
            der(self.leaf), given, roots, name=self.name, usage=self.usage,
            profile=self.profile, max_depth=self.max_depth,
        )  # fmt: skip


def straight(
    id_: str, rule: str, code: Code | None = None, *, sans: Sequence[object] = (),
    root: dict[str, object] | None = None, inner: dict[str, object] | None = None,
    end: dict[str, object] | None = None, **more: object,
) -> Case:  # fmt: skip
    """A root, an inner CA and a leaf, each as usual but for what is said."""
    top = ca(f"{id_} Root", **(root or {}))
    middle = ca(f"{id_} Inner", top, **(inner or {}))
    bottom = leaf(middle, *sans, **(end or {}))  # type: ignore[arg-type]
    return Case(id_, rule, code, bottom, [middle], [top], **more)  # type: ignore[arg-type]


def raw(oid: str, value: bytes) -> x509.UnrecognizedExtension:
    """An extension of any bytes."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def pem_of(specs: Sequence[Spec]) -> bytes:
    return b"".join(written(der(spec)) for spec in specs)
