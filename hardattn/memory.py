"""Keep freed memory for the next step instead of giving it back to the system.

A training step frees and asks again for the same few megabytes, hundreds of times a second. glibc returns such blocks to the
system each time, and the page faults of getting them back cost a fifth of the step here. Other C libraries are left alone.
"""

import ctypes
import sys

M_MXFAST, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = 1, -1, -2, -3  # malloc.h
MEGABYTE = 1 << 20


def keep_freed_memory() -> bool:
    """Raise glibc's thresholds for giving memory back. Returns whether this system took them.

    The small blocks that it sets aside unmerged go too: each time a large block is freed it would merge them all, 1 % of a step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_THRESHOLD, 1024 * MEGABYTE), (M_TRIM_THRESHOLD, 2047 * MEGABYTE), (M_TOP_PAD, 64 * MEGABYTE), (M_MXFAST, 0))
    return all([mallopt(option, value) == 1 for option, value in settings])
