"""One contestant in its own process and environment: prepares itself, then runs once whenever it is told to.

Started by `_harness.Worker`; only the standard library at the top, a peer's environment holds nothing of ours.
"""

import importlib
import json
import os
import sys
import time


def main() -> None:
    """Answer each line on stdin, `run` or `save <folder>`, with one JSON line."""
    # The real stdout carries the protocol; what libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module_name, contestant, arguments = sys.argv[1:4]
    module = importlib.import_module(module_name)
    job = getattr(module, contestant)(**json.loads(arguments))
    result = None

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer("ready")
    for line in sys.stdin:
        word, _, folder = line.strip().partition(" ")
        if word == "run":
            result = None
            start = time.perf_counter()
            result = job()
            answer(time.perf_counter() - start)
        else:
            module.save(result, folder)
            answer("saved")


if __name__ == "__main__":
    main()
