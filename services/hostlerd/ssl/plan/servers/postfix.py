"""Postfix: its daemons that speak TLS. Source: postconf(5), master(5)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hostlerd.ssl.model.site import Parsed, Reference, Role, Setting, Site
from hostlerd.ssl.plan.servers.files import Files, Source, is_on, joined, listener, split_listener

_VARIABLE = re.compile(
    r"\$(?:\{([A-Za-z0-9_]+)(?:[?:][^}]*)?\}|\(([A-Za-z0-9_]+)\)|([A-Za-z0-9_]+))"
)
_PORTS = {"smtp": "25", "smtps": "465", "submissions": "465", "submission": "587", "urd": "465"}
_ROLES = {
    "smtpd_tls_cert_file": Role.CERTIFICATE,
    "smtpd_tls_key_file": Role.KEY,
    "smtpd_tls_eccert_file": Role.CERTIFICATE,
    "smtpd_tls_eckey_file": Role.KEY,
    "smtpd_tls_dcert_file": Role.CERTIFICATE,
    "smtpd_tls_dkey_file": Role.KEY,
    "smtpd_tls_CAfile": Role.AUTHORITY,
}
_SETTINGS = (
    *("smtpd_tls_security_level", "smtpd_tls_protocols", "smtpd_tls_mandatory_protocols"),
    *("smtpd_tls_ciphers", "smtpd_tls_mandatory_ciphers", "smtpd_tls_exclude_ciphers"),
    *("smtpd_tls_auth_only", "tls_preempt_cipherlist", "smtpd_tls_wrappermode"),
    *("smtpd_tls_eecdh_grade", "smtpd_tls_dh1024_param_file", "tls_ssl_options"),
)
_NONE = frozenset({"", "none"})


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a parameter, and where it stands."""

    text: str
    path: str
    line: int


def parse(source: Source, folder: str) -> Parsed:
    """Read main.cf and master.cf of a folder."""
    parsed = Parsed()
    files = Files(source, parsed)
    main = parameters(files.read(f"{folder}/main.cf"), f"{folder}/main.cf")
    master = f"{folder}/master.cf"
    for line, text in logical_lines(files.read(master)):
        words = text.split()
        if len(words) > 7 and words[1] == "inet" and words[7] == "smtpd":
            own = _options(words[8:], master, line)
            parsed.sites.extend(_sites(files, parsed, {**main, **own}, words[0], folder))
    return parsed


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers: those that begin with a space go on with the one before."""
    held, begun = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        if raw[0] in " \t" and held:
            held += " " + raw.strip()
            continue
        if held:
            yield begun, held
        held, begun = raw.strip(), number
    if held:
        yield begun, held


def parameters(text: str, path: str) -> dict[str, Value]:
    """The parameters of main.cf; the last one of a name counts."""
    found = {}
    for line, whole in logical_lines(text):
        name, equals, value = whole.partition("=")
        if equals:
            found[name.strip()] = Value(value.strip(), path, line)
    return found


def _options(words: list[str], path: str, line: int) -> dict[str, Value]:
    found = {}
    for option, word in itertools.pairwise(words):
        if option == "-o" and "=" in word:
            name, _, value = word.strip("{}").partition("=")
            found[name.strip()] = Value(value.strip(), path, line)
    return found


def expanded(of: Mapping[str, Value], name: str, depth: int = 0) -> str:
    """The value of a parameter with those that it names in place. Bounded in depth and length."""
    text = of[name].text if name in of else ""
    if depth > 8:
        return text

    def inner(found: re.Match[str]) -> str:
        wanted = found[1] or found[2] or found[3]
        return expanded(of, wanted, depth + 1) if wanted in of else found[0]

    return _VARIABLE.sub(inner, text)[:4096]


def _sites(
    files: Files, parsed: Parsed, of: Mapping[str, Value], service: str, folder: str
) -> Iterator[Site]:
    wrapped = is_on(expanded(of, "smtpd_tls_wrappermode"))
    level = expanded(of, "smtpd_tls_security_level") or (
        "may" if is_on(expanded(of, "smtpd_use_tls")) else ""
    )
    if not wrapped and level in _NONE:
        return
    settings = tuple(
        Setting(name, expanded(of, name), of[name].path, of[name].line)
        for name in _SETTINGS
        if name in of
    )
    places = tuple(_places(service, expanded(of, "inet_interfaces")))
    starttls = "" if wrapped else "smtp"
    references = tuple(_references(of, folder))
    yield Site("postfix", (), places, references, settings, default=True, starttls=starttls)
    for names, listed in _by_name(files, of):
        yield Site("postfix", names, places, listed, settings, starttls=starttls)


def _places(service: str, interfaces: str) -> Iterator[str]:
    address, port = split_listener(service, 0)
    if port == "0":
        address, port = "", address
    number = _PORTS.get(port, port)
    if address and address != "*":
        yield listener(address, number)
        return
    for each in re.split(r"[,\s]+", interfaces or "all"):
        if each in ("all", ""):
            yield listener("*", number)
        elif each == "loopback-only":
            yield listener("127.0.0.1", number)
        else:
            yield listener(each, number)


def _references(of: Mapping[str, Value], folder: str) -> Iterator[Reference]:
    chain = expanded(of, "smtpd_tls_chain_files")
    if chain:
        at = of["smtpd_tls_chain_files"]
        for file in re.split(r"[,\s]+", chain):
            path = joined(folder, file)
            yield Reference(Role.BOTH, path, "smtpd_tls_chain_files", at.path, at.line)
        return
    for name, role in _ROLES.items():
        file = expanded(of, name)
        if file and file != "none":
            yield Reference(role, joined(folder, file), name, of[name].path, of[name].line)
        elif role is Role.KEY and not file and (pair := _certificate_of(of, name)):
            # Its default is the file of the certificate.
            yield Reference(role, joined(folder, pair.text), name, pair.path, pair.line)


def _certificate_of(of: Mapping[str, Value], key: str) -> Value | None:
    name = key.replace("key_file", "cert_file")
    text = expanded(of, name)
    return Value(text, of[name].path, of[name].line) if text and text != "none" else None


def _by_name(
    files: Files, of: Mapping[str, Value]
) -> Iterator[tuple[tuple[str, ...], tuple[Reference, ...]]]:
    """The names of tls_server_sni_maps, by the text that the map was made of."""
    for table in re.split(r"[,\s]+", expanded(of, "tls_server_sni_maps")):
        path = table.partition(":")[2]
        if not path.startswith("/"):
            continue
        for line, text in logical_lines(files.read(path, 1)):
            name, *listed = re.split(r"[,\s]+", text)
            yield (
                (name,),
                tuple(
                    Reference(Role.BOTH, file, "tls_server_sni_maps", path, line)
                    for file in listed
                    if file.startswith("/")
                ),
            )
