"""Two trainings and three downloads at once: two rounds of tests/concurrent_starts.py."""

import subprocess
import sys
from pathlib import Path

from command_line import posix


@posix
def test_one_training_goes_on_the_other_says_why_and_one_download_serves_all():
    script = Path(__file__).with_name("concurrent_starts.py")
    done = subprocess.run([sys.executable, script, "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("round") == 2
