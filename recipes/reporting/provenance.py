"""When, where and how a report was made."""

from __future__ import annotations

import os
import platform
import sys
import time
from datetime import UTC, datetime
from typing import Any

import torch


def provenance(began: float) -> dict[str, Any]:
    """Time, command, machine and seconds since ``began``, a time of `time.monotonic`."""
    system = f"{platform.system()} {platform.machine()}"
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "vqmem " + " ".join(sys.argv[1:]),
        "machine": f"{system}, {torch.get_num_threads()} of {os.cpu_count()} threads, torch {torch.__version__}",
        "seconds": time.monotonic() - began,
    }
