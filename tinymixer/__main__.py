"""`python -m tinymixer` is the `tinymixer` command."""

import sys

from tinymixer.cli import main

sys.exit(main())
