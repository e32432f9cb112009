"""`csa` and `python -m csa_core`: see `csa_core.cli`."""

import sys

from csa_core.interrupt import end_at_once

end_at_once("csa_core")

from csa_core.cli import main  # noqa: E402 - its imports take a second

if __name__ == "__main__":
    sys.exit(main())
