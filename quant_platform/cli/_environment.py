"""What must be in the environment before numpy is loaded; whoever has set it himself keeps it.

Units, and the live writer's cycles, have the cores among them: threads of BLAS would only spin beside them.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
