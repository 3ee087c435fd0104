"""Turn a tree of CIFAR-10 pictures, train/<class>/NNNN.jpg and test/<class>/NNNN.jpg, into the data set's own binary layout.

    python tools/cifar10_from_jpeg.py FOLDER_OR_TAR OUT

OUT gets data_batch_1.bin .. data_batch_5.bin and test_batch.bin, 10,000 records of 3,073 bytes each: a label, then the red, green
and blue values row by row. Classes take turns (airplane 0000, automobile 0000, ..), so that any stretch of records holds all alike.
JPEG copies differ slightly from the original images; results made from them say so.
"""

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORDS = 10_000  # in a file


def pictures(source: Path) -> Iterator[tuple[str, bytes]]:
    """Every picture's path inside the tree, and its bytes."""
    if source.is_dir():
        for path in source.rglob("*.jpg"):
            yield str(path.relative_to(source)), path.read_bytes()
        return
    with tarfile.open(source) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if stream:
                yield member.name, stream.read()


def record(name: str, raw: bytes) -> tuple[tuple[str, int, int], bytes]:
    """Where a picture belongs (split, number, class) and its record."""
    split, kind, file = Path(name).parts[-3:]
    pixels = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
    if pixels.shape != (32, 32, 3):
        sys.exit(f"{name}: {pixels.shape[1]} x {pixels.shape[0]} pixels, wanted 32 x 32")
    label = CLASSES.index(kind)
    return (split, int(Path(file).stem), label), bytes([label]) + pixels.transpose(2, 0, 1).tobytes()


def main(source: Path, out: Path) -> None:
    """Convert and write; says what was written."""
    records = dict(record(name, raw) for name, raw in pictures(source))
    out.mkdir(parents=True, exist_ok=True)
    for split, stem in (("train", "data_batch_{}"), ("test", "test_batch")):
        ordered = [records[key] for key in sorted(records) if key[0] == split]
        for first in range(0, len(ordered), RECORDS):
            (out / f"{stem.format(first // RECORDS + 1)}.bin").write_bytes(b"".join(ordered[first : first + RECORDS]))
        print(f"{len(ordered):,} {split} images in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
