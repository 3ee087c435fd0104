"""Fetching data from a server of our own: whole, broken off and gone on with, wrong, absent."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hardattn import data
from hardattn.cli import main
from hardattn.envs.errors import HardattnError, UsageError

RECORD = bytes([3]) + bytes(3072)


def archive() -> bytes:
    """A tar like CIFAR-10's, one record a file, with a stranger among them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in (*data.CIFAR10.files, "readme.html", "../evil.bin"):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(RECORD)
            tar.addfile(member, io.BytesIO(RECORD))
    return packed.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serves the archive, parts of it too; yields the ranges asked for. The package knows of no other server."""
    body, asked = archive(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range", ""))
            begin = int(asked[-1].removeprefix("bytes=").rstrip("-") or 0)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(body) - begin))
            self.end_headers()
            self.wfile.write(body[begin:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    urls = ("http://127.0.0.1:9/cifar.tar.gz", f"http://127.0.0.1:{served.server_port}/cifar.tar.gz")  # nobody answers the first
    sizes = dict.fromkeys(data.CIFAR10.files, len(RECORD))
    known = replace(data.CIFAR10, urls=urls, sha256=hashlib.sha256(body).hexdigest(), files=sizes)
    monkeypatch.setitem(data.SOURCES, "cifar10", known)
    monkeypatch.setenv("HARDATTN_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("HARDATTN_OFFLINE", raising=False)
    yield asked
    served.shutdown()
    served.server_close()
    thread.join()


def test_fetch_takes_the_mirror_that_answers_and_unpacks_what_is_wanted(server: list[str], tmp_path: Path) -> None:
    main(["data", "fetch", "cifar10"])
    assert sorted(path.name for path in (tmp_path / "cifar10").iterdir()) == sorted(data.CIFAR10.files)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10"]  # no archive left, nothing outside the folder
    main(["data", "verify", "cifar10"])
    main(["data", "fetch", "cifar10"])
    assert server == [""]  # what is there is not fetched again


def test_a_broken_download_goes_on(server: list[str], tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz.part").write_bytes(archive()[:100])
    data.fetch("cifar10")
    assert server == ["bytes=100-"] and not data.missing("cifar10")


def test_a_wrong_hash_is_refused_and_nothing_unpacked(server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.SOURCES, "cifar10", replace(data.SOURCES["cifar10"], sha256="0" * 64))
    with pytest.raises(HardattnError, match=r"SHA-256 .*wanted 0000.*deleted, try again"):
        data.fetch("cifar10")
    assert not any(tmp_path.iterdir())


def test_offline_says_what_is_wanted_and_where(
    server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARDATTN_OFFLINE", "1")
    with pytest.raises(SystemExit) as left:
        main(["data", "fetch", "cifar10"])
    said = capsys.readouterr().err
    assert left.value.code == 1 and "data_batch_1.bin is missing" in said and str(tmp_path / "cifar10") in said and not server
    main(["data", "path", "cifar10", "--data-dir", str(tmp_path / "elsewhere")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "elsewhere" / "cifar10")


def test_names_and_sizes_are_checked(server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SYSTEM_FASHION", tmp_path / "no such folder")  # this machine may have Debian's package
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        data.fetch("cifar1")
    data.fetch("cifar10")
    (tmp_path / "cifar10" / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(HardattnError, match=r"test_batch\.bin holds 5 bytes, wanted 3,073"):
        data.verify("cifar10")
    (tmp_path / "cifar10" / "test_batch.bin").write_bytes(bytes([200]) + RECORD[1:])
    with pytest.raises(HardattnError, match="a label is 200"):
        data.verify("cifar10")
    (tmp_path / "cifar10" / "test_batch.bin").write_bytes(bytes(len(RECORD)))
    with pytest.raises(HardattnError, match=r"test_batch\.bin holds nothing but zeros"):
        data.verify("cifar10")
    data.fetch("cifar10")  # which what is damaged does not keep from downloading
    data.verify("cifar10")
    with pytest.raises(UsageError, match=r"cannot be fetched: .*dataset-fashion-mnist"):
        data.fetch("fashion")
