"""`python -m loadbench.serve.simulator`."""

import sys

from loadbench.serve.simulator import main

if __name__ == "__main__":
    sys.exit(main())
