"""`python -m hotnas_torch` is the command `hotnas`."""

import sys

from hotnas_torch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
