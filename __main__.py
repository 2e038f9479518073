"""``python -m vqmem``: the command line, also under ``torchrun -m``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
