"""`python -m csa_core`: see `csa_core.cli`."""

import sys

from csa_core.cli import main

sys.exit(main())
