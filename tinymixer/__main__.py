"""`python -m tinymixer` is the `tinymixer` command."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that Ctrl-C prints no traceback

from tinymixer.cli import main

if __name__ == "__main__":
    sys.exit(main())
