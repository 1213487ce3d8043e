"""With this folder first on the path, `import cupy` is the stand-in, in any process. No twins."""

import sys

import cupy_stand_in

from tinymixer import engine
from tinymixer.nn import mixture
from tinymixer.train import bench

engine.twins.clear()
mixture.ASKED["gpu"] = True
bench.SIDE = 64
sys.modules["cupy"] = cupy_stand_in
