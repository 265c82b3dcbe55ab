"""What must be in the environment before numpy and Polars are loaded; whoever has set it himself keeps it.

Units, and the live writer's cycles, have the cores among them: threads of BLAS would only spin beside them. What one
cycle frees the next one needs, half a second later: Polars' allocator, which would give it back to the system by then,
keeps it for ten, as jemalloc does where nobody says otherwise.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:10000")
