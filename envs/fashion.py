"""Fashion-MNIST (Xiao et al. 2017): 28x28 pictures of clothes in MNIST's format.

The four files, gzipped, lie in the data folder under fashion/, or where Debian's package dataset-fashion-mnist puts them.
"""

import gzip
import zlib

import torch

from hardattn.envs.data_folder import SYSTEM_FASHION, data_dir
from hardattn.envs.datasets import SPLITS, Dataset, parse_idx
from hardattn.envs.errors import HardattnError, unknown

VALIDATION = 5000  # the last training pictures


def fashion(split: str) -> Dataset:
    """Fashion-MNIST [N, 1, 28, 28]: "train" (55,000), "validation" (the last 5,000 training pictures) or "test" (10,000).

    Raises HardattnError naming the file that is missing or damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    prefix = "t10k" if split == "test" else "train"
    images, labels = _read(f"{prefix}-images-idx3-ubyte.gz")[:, None], _read(f"{prefix}-labels-idx1-ubyte.gz").long()
    if split != "test":
        held = max(1, min(VALIDATION, len(images) // 10))  # fewer of a small part, as tests have it
        chosen = slice(-held, None) if split == "validation" else slice(None, -held)
        images, labels = images[chosen], labels[chosen]
    return Dataset("fashion", images, labels, 10)


def _read(name: str) -> torch.Tensor:
    own = data_dir() / "fashion" / name
    path = own if own.exists() or not (SYSTEM_FASHION / name).exists() else SYSTEM_FASHION / name
    try:
        return torch.from_numpy(parse_idx(gzip.decompress(path.read_bytes())))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        remedy = "the Debian package dataset-fashion-mnist has it; `hardattn data path fashion` says where else it may lie"
        raise HardattnError(f"cannot read {path}: {error}; {remedy}") from error
