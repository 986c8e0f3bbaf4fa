"""`python -m pix2pix_zero_cli` is the command `pix2pix-zero`."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
