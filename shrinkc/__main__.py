"""`python -m shrinkc`"""

from __future__ import annotations

import sys

from shrinkc.compiler.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
