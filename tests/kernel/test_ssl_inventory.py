"""What the reader tells of real files: all that is there, and nothing of a key."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ssl_disk import Pair, openssl, pair
from ssl_reader import reader

from hostlerd.ssl.errors import ChainNotFound
from hostlerd.ssl.kernel import chains
from hostlerd.ssl.kernel.certificates import Certificates
from hostlerd.ssl.kernel.reading import Reader, Reading
from hostlerd.ssl.model.inventory import Inventory
from hostlerd.ssl.model.place import FileFound
from hostlerd.ssl.plan.inventory import build
from hostlerd.ssl.reader import containers, opening
from hostlerd.ssl.reader.opening import NotRegular

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.fixture
def asked(tmp_path: Path, disk: Path) -> Iterator[Reader]:
    with reader(tmp_path, [disk]) as one:
        yield one


def of(reading: Reading, path: Path) -> FileFound:
    (found,) = (each for each in reading.files if str(path) in each.paths)
    return found


def inventory(reading: Reading) -> Inventory:
    facts = Certificates().facts(der for file in reading.files for der in file.certificates)
    return build(reading.files, reading.sites, facts, datetime.now(UTC))


def test_every_format_is_told_by_its_content(asked: Reader, disk: Path) -> None:
    one = pair(disk, "one")
    der, p7, p12 = disk / "wrong-suffix.pem", disk / "one.p7b", disk / "one.bin"
    openssl("x509", "-in", one.certificate, "-outform", "DER", "-out", der)
    openssl("crl2pkcs7", "-nocrl", "-certfile", one.certificate, "-out", p7)
    openssl(
        *("pkcs12", "-export", "-in", one.certificate, "-inkey", one.key, "-out", p12),
        *("-passout", "pass:", "-keypbe", "NONE", "-certpbe", "NONE", "-nomaciter"),
    )
    reading = asked.inventory(files=True)
    formats = {path.name: of(reading, path).format for path in (one.certificate, der, p7)}
    assert formats == {"one.crt": "pem", "wrong-suffix.pem": "der", "one.p7b": "pem"}
    made = inventory(reading)
    assert {place.path for place in made.certificates[one.fingerprint].places} >= {
        str(path) for path in (one.certificate, der, p7)
    }
    assert [place.path for place in made.certificates[one.fingerprint].key_places][:1]
    assert made.keys[one.spki].certificates == [one.fingerprint]


def test_keys_are_known_by_their_public_half_and_by_who_may_read_them(
    asked: Reader, disk: Path
) -> None:
    open_, shared = pair(disk, "open"), pair(disk, "a")
    again = pair(disk, "b", key=shared.key)
    open_.key.chmod(0o644)
    os.chown(open_.key, 65534, 0)
    made = inventory(asked.inventory(files=True))
    codes = {each.code for each in made.keys[open_.spki].findings}
    assert codes == {"KEY_WORLD_READABLE", "KEY_OWNER"}
    assert sorted(made.keys[shared.spki].certificates) == sorted(
        [shared.fingerprint, again.fingerprint]
    )
    assert [each.code for each in made.keys[shared.spki].findings] == ["KEY_SHARED"]
    assert made.keys[open_.spki].places[0].owner == "nobody"


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """The root of a process that has another one than the host, as in a container."""
    root = tmp_path / "root"
    (root / "srv/tls").mkdir(parents=True)
    program = "import os, sys; os.chroot(sys.argv[1]); os.chdir('/'); print(); sys.stdin.read()"
    argv = [sys.executable, "-c", program, str(root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline()
        yield root
        process.stdin.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_files_in_another_root_are_told_with_whose_it_is(tmp_path: Path, inside: Path) -> None:
    tls, host = inside / "srv/tls", tmp_path / "host"
    (tls / "deep").mkdir()
    host.mkdir()
    one, secret = pair(tls / "deep", "one"), pair(host, "secret")
    os.chown(one.key, 1234, 0)
    # What leads out of it, leads nowhere: by a link, or by a folder that is one.
    (tls / "out.pem").symlink_to(secret.certificate)
    (tls / "up.pem").symlink_to("../" * 40 + str(secret.certificate)[1:])
    (tls / "host").symlink_to(host)
    os.mkfifo(tls / "pipe.pem")
    (tls / "bad.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    with reader(tmp_path, [Path("/srv/tls")]) as asked:
        reading = asked.inventory(files=True)
    found = {path: each for each in reading.files for path in each.paths if each.container}
    mine = {path for path in found if path.startswith("/srv/tls")}
    assert mine == {"/srv/tls/deep/one.crt", "/srv/tls/deep/one.key", "/srv/tls/bad.pem"}
    made = inventory(reading)
    assert secret.fingerprint not in made.certificates
    (place,) = made.certificates[one.fingerprint].places
    assert place.label == f"{place.container}:/srv/tls/deep/one.crt" and place.container
    key = made.keys[one.spki]
    assert (key.places[0].owner, key.findings) == ("1234", [])
    assert f"{place.container}:/srv/tls/bad.pem" in {each.path for each in made.unreadable}
    # A setting of the host that names such a path means a file of the host.
    with pytest.raises(ChainNotFound):
        chains.of_file("/srv/tls/deep/one.crt", made)


def test_file_systems_that_answer_when_they_like_are_not_entered() -> None:
    told = (
        b"1 0 0:1 / / rw - overlay overlay rw\n"
        b"2 1 0:2 / /srv/a\\040b rw shared:1 - fuse.sshfs x rw\n"
        b"3 1 0:3 / /srv/nfs rw - nfs4 x rw\n"
        b"4 1 0:4 / /srv/nfs rw - tmpfs x rw\n"
        b"5 1 0:5 / /\xc3\xa4 rw - 9p x rw\n"
    )
    found = containers.forbidden(told)
    assert found == {"/srv/a b", "/ä"}
    root = containers.Root(-1, "c", found)
    assert [root.may_enter(p) for p in ("/srv", "/srv/a b", "/srv/a b/c", "/srv/nfs", "/ä/x")] == [
        *(True, False, False, True, False)
    ]
    # Nor anything, where the root is such a one, or there are more mounts than are read.
    for told in (b"1 0 0:1 / / - fuse x", b"x" * (4 << 20)):
        assert not containers.Root(-1, "c", containers.forbidden(told)).may_enter("/a")


def test_an_encrypted_key_is_told_as_that(asked: Reader, disk: Path) -> None:
    one = pair(disk, "one")
    locked = disk / "locked.key"
    openssl("pkey", "-in", one.key, "-aes256", "-passout", "pass:secret words", "-out", locked)
    reading = asked.inventory(files=True)
    (key,) = of(reading, locked).keys
    assert (key.encrypted, key.spki_sha256) == (True, "")
    assert of(reading, locked).faults == ()


def test_garbage_is_named_and_the_rest_goes_on(asked: Reader, disk: Path) -> None:
    good = pair(disk, "good")
    pem = good.certificate.read_bytes()
    files: dict[str, bytes] = {
        "truncated.pem": pem[: len(pem) // 2],
        "garbage.der": b"\x30\x82\xff\xff" + os.urandom(400),
        "text.crt": b"this is no certificate\n",
        "empty.pem": b"",
        "huge.pem": pem * (10_000_000 // len(pem)),
        "keystore.jks": b"\xfe\xed\xfe\xed" + bytes(100),
        "bits.pem": pem.replace(b"M", b"?", 3),
    }
    for name, data in files.items():
        (disk / name).write_bytes(data)
    (disk / "bom.pem").write_bytes(b"\xef\xbb\xbf" + pem)
    (disk / "crlf.pem").write_bytes(pem.replace(b"\n", b"\r\n"))
    (disk / "two.pem").write_bytes(pem + b"words between\n" + pem)
    (disk / "readme.txt").write_bytes(b"nothing here is a certificate")
    made = inventory(asked.inventory(files=True))
    named = {Path(e.path).name for e in made.unreadable if e.path.startswith(str(disk))}
    assert named == set(files)
    assert {Path(place.path).name for place in made.certificates[good.fingerprint].places} == {
        *("good.crt", "bom.pem", "crlf.pem", "two.pem")
    }


def test_what_is_no_regular_file_is_never_opened(asked: Reader, disk: Path) -> None:
    good = pair(disk, "good")
    os.mkfifo(disk / "pipe.pem")
    (disk / "device.pem").symlink_to("/dev/zero")
    (disk / "loop.pem").symlink_to(disk / "loop.pem")
    (disk / "round").symlink_to(disk)
    (disk / "gone.pem").symlink_to(disk / "nowhere")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(disk / "door.pem"))
        reading = asked.inventory(files=True)
    for name in ("pipe.pem", "device.pem"):
        with pytest.raises(NotRegular):
            opening.read(str(disk / name), 10)
    mine = {path for file in reading.files for path in file.paths if path.startswith(str(disk))}
    assert mine == {str(good.certificate), str(good.key)}


def test_links_are_names_of_one_file(asked: Reader, disk: Path) -> None:
    (disk / "archive").mkdir()
    (disk / "live").mkdir()
    one = pair(disk / "archive", "one")
    link = disk / "live" / "cert.pem"
    link.symlink_to(one.certificate)
    found = of(asked.inventory(files=True), link)
    assert found.paths == (str(one.certificate), str(link))


def test_nothing_of_a_key_leaves_the_reader(asked: Reader, disk: Path, tmp_path: Path) -> None:
    rsa = disk / "rsa.key"
    openssl("genrsa", "-out", rsa, "2048")
    made: list[Pair | Path] = [pair(disk, "one"), rsa]
    keys = [each.key if isinstance(each, Pair) else each for each in made]
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(tmp_path / "reader.sock"))
        door.sendall(b'{"op": "files"}\n')
        with door.makefile("rb") as lines:
            answer = lines.read()
    assert json.loads(answer.splitlines()[-1]) == {"end": True}
    assert all(str(key).encode() in answer for key in keys)
    # Lines of PEM become one, whether they are broken as in a file or as in JSON.
    whole = answer.replace(b"\\n", b"").replace(b"\n", b"")
    for key in keys:
        text = key.read_bytes().replace(b"\n", b"")
        for secret in secrets_of(key):
            pieces = pieces_of(secret)
            # Shows that the file itself is found by them.
            assert any(piece in text for piece in pieces)
            assert not [piece for piece in pieces if piece in whole]
            assert secret not in answer
            assert secret.hex().encode() not in answer


def pieces_of(secret: bytes) -> set[bytes]:
    """What base64 makes of 12 bytes of a secret, wherever it begins."""
    return {
        base64.b64encode(secret[at : at + 12])
        for shift in range(3)
        for at in range(shift, len(secret) - 12, 3)
    }


def test_another_user_is_not_heard() -> None:
    """The mode of the socket aside: who is at the other end is asked of the kernel."""
    with TemporaryDirectory(prefix="hostler-test-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with reader(folder, [folder]) as one:
            (folder / "reader.sock").chmod(0o666)
            ask = (
                "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
                'try:\n    s.sendall(b\'{"op": "files"}\\n\')\n    print(len(s.recv(9)))\n'
                "except OSError:\n    print(0)\n"
            )
            argv = [sys.executable, "-I", "-c", ask, str(folder / "reader.sock")]
            as_nobody = ["/usr/bin/setpriv", "--reuid=nobody", "--clear-groups", "/usr/bin/python3"]
            shown = subprocess.run([*as_nobody, *argv[1:]], capture_output=True, check=True)
            assert shown.stdout == b"0\n"
            assert subprocess.run(argv, capture_output=True, check=True).stdout == b"9\n"
            assert one.inventory(files=False).unseen is not None


def secrets_of(key: Path) -> list[bytes]:
    """The numbers of a private key that are not in its public half, as openssl tells them."""
    told = openssl("pkey", "-in", key, "-noout", "-text").decode()
    found, name = {}, ""
    for line in told.splitlines():
        if not line.startswith(" "):
            name = line.partition(":")[0]
            found[name] = ""
        else:
            found[name] += line.strip().replace(":", "")
    wanted = (
        "priv",
        "privateExponent",
        "prime1",
        "prime2",
        "exponent1",
        "exponent2",
        "coefficient",
    )
    numbers = [bytes.fromhex(found[name]).lstrip(b"\0") for name in wanted if name in found]
    assert numbers
    return numbers
