"""One thread a test: steady on shared machines, and quicker than two on tiny models."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
