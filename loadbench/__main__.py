"""`python -m loadbench`: the command line where the script `loadbench` is not on the PATH."""

import sys

from loadbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
