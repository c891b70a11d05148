"""Run the command line: ``python -m nixl_connect`` is ``nixl-connect``."""

import sys

from nixl_connect.cli import main

sys.exit(main())
