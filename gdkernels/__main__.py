"""`python -m gdkernels` is the command `gdkernels`."""

import sys

from .cli.main import main

sys.exit(main())
