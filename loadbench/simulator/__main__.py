"""`python -m loadbench.simulator`."""

import sys

from loadbench.simulator import main

if __name__ == "__main__":
    sys.exit(main())
