"""Where data that do not ship with the package are looked for."""

import os
from pathlib import Path


def data_dir() -> Path:
    """The folder of data that do not ship: HARDATTN_DATA_DIR, or hardattn in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HARDATTN_DATA_DIR") or cache / "hardattn")


# Where Debian's package dataset-fashion-mnist puts its files.
SYSTEM_FASHION = Path("/usr/share/datasets/fashion-mnist")
