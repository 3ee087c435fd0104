"""Data that do not ship: where they belong, how to fetch them, whether they are whole. Imports no torch."""

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hardattn.envs.data_folder import SYSTEM_FASHION, data_dir
from hardattn.envs.errors import HardattnError, UsageError, unknown


@dataclass(frozen=True)
class Source:
    """A data set's folder, its files, and the archive that holds them."""

    folder: str
    files: dict[str, int]  # name -> bytes
    urls: tuple[str, ...] = ()  # mirrors of the archive, tried in turn; none where nothing can be fetched
    sha256: str = ""  # of the archive
    remedy: str = ""  # where to get the files otherwise


CIFAR10 = Source(
    "cifar10",
    {f"data_batch_{k}.bin": 30_730_000 for k in range(1, 6)} | {"test_batch.bin": 30_730_000},
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "the page www.cs.toronto.edu/~kriz/cifar.html has the binary version",
)
FASHION = Source(
    "fashion",
    {
        "train-images-idx3-ubyte.gz": 0,
        "train-labels-idx1-ubyte.gz": 0,
        "t10k-images-idx3-ubyte.gz": 0,
        "t10k-labels-idx1-ubyte.gz": 0,
    },
    remedy="the Debian package dataset-fashion-mnist has them, or the page of zalandoresearch/fashion-mnist",
)
SOURCES = {"cifar10": CIFAR10, "fashion": FASHION}


def source(name: str) -> Source:
    """The named data set. Raises UsageError for an unknown one."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES, "MNIST ships with the package, docs/svhn.md tells of SVHN")
    return SOURCES[name]


def missing(name: str) -> list[str]:
    """What is wrong with the files of a data set, a line each; empty if all are there and whole."""
    wanted, found = source(name), []
    for file, size in wanted.files.items():
        path = data_dir() / wanted.folder / file
        if not path.exists() and name == "fashion":
            path = SYSTEM_FASHION / file
        if not path.exists():
            found.append(f"{data_dir() / wanted.folder / file} is missing")
        elif size and path.stat().st_size != size:
            found.append(f"{path} holds {path.stat().st_size:,} bytes, wanted {size:,}")
    return found


def found_in(name: str) -> Path:
    """The folder that a data set is read from: ours, or the system's copy of Fashion-MNIST where ours lacks a file."""
    folder = data_dir() / source(name).folder
    lacking = name == "fashion" and not all((folder / file).exists() for file in FASHION.files)
    return SYSTEM_FASHION if lacking else folder


def verify(name: str) -> None:
    """Look at every file of a data set. Raises HardattnError naming those that are missing or damaged."""
    wrong = missing(name)
    if not wrong and name == "cifar10":
        from hardattn.envs.cifar10 import TEST, TRAIN, read_records

        for file in (*TRAIN, *TEST):
            read_records(data_dir() / "cifar10" / file)
    elif not wrong:
        from hardattn.envs.fashion import fashion

        fashion("train")
        fashion("test")
    if wrong:
        raise HardattnError(f"{'; '.join(wrong)}. {_remedy(name)}")


def _remedy(name: str) -> str:
    wanted = source(name)
    fetch = f"`hardattn data fetch {name}` downloads them; or " if wanted.urls else ""
    return f"{fetch}put the files into {data_dir() / wanted.folder}: {wanted.remedy}"


def fetch(name: str, watch: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Download a data set's archive, check its hash, unpack its files. Returns their folder; does nothing if `verify` passes.

    A download that broke off goes on where it stopped. Raises HardattnError if no mirror answers, the hash differs, or
    HARDATTN_OFFLINE is set; UsageError if the set cannot be fetched.
    """
    wanted = source(name)
    folder = data_dir() / wanted.folder
    try:
        verify(name)
        return folder
    except HardattnError as error:
        wrong = str(error)
    if not wanted.urls:
        raise UsageError(f"{name} cannot be fetched: {_remedy(name)}")
    if os.environ.get("HARDATTN_OFFLINE"):
        raise HardattnError(f"HARDATTN_OFFLINE is set, and {wrong}")
    archive = data_dir() / wanted.urls[0].rpartition("/")[2]
    errors = []
    for url in wanted.urls:
        try:
            _download(url, archive, watch)
            break
        except OSError as error:  # urllib's errors are of this kind too
            if getattr(error, "code", 0) == 416:  # nothing comes after what is there: it is whole, or another file
                archive.with_name(f"{archive.name}.part").replace(archive)
                break
            errors.append(f"{url}: {error}")
    else:
        raise HardattnError(f"cannot download {name}: {'; '.join(errors)}. {wanted.remedy}; put the files into {folder}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != wanted.sha256:
        archive.unlink()
        raise HardattnError(f"{archive.name}: SHA-256 {found}, wanted {wanted.sha256}; it is deleted, try again")
    _unpack(archive, folder, wanted)
    archive.unlink()
    return folder


def _download(url: str, archive: Path, watch: Callable[[int, int], None]) -> None:
    """Put what `url` gives into a file, from where an earlier try left off. OSError if the server does not answer."""
    import urllib.request

    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f"{archive.name}.part")
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        if begun and answer.status != 206:  # the server sends it all again
            begun = 0
        total = begun + int(answer.headers.get("Content-Length") or 0)
        with open(part, "ab" if begun else "wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
                watch(file.tell(), total)
            if file.tell() < total:
                raise OSError(f"the server stopped after {file.tell():,} of {total:,} bytes; what came is kept, try again")
    os.replace(part, archive)


def _unpack(archive: Path, folder: Path, wanted: Source) -> None:
    """Write the archive's wanted files into the folder, whatever folders they lie in there; nothing else is unpacked."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            stream = tar.extractfile(member) if name in wanted.files and member.isfile() else None
            if stream is None:
                continue
            temporary = folder / f".{name}.tmp"
            with contextlib.closing(stream), open(temporary, "wb") as file:
                file.write(stream.read())
            os.replace(temporary, folder / name)
