"""`python -m recurlab`, for torchrun."""

import sys

from recurlab.cli import main

sys.exit(main())
