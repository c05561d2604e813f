"""Worker process of a decoding pool: reads lists of inputs from stdin, writes lists of results.

It exits at the end of stdin, so it never outlives the job.
"""

import os
import pickle
import signal
import sys
from pathlib import Path

from seit.errors import SeitError
from seit.locks import turn


def main() -> None:
    """Serve requests until the pool is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, which stops this process
    requests = sys.stdin.buffer
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keep library output out of the answers
        decoder, lock_path = pickle.load(requests)  # noqa: S301 - from the job itself
        while True:
            try:
                items = pickle.load(requests)  # noqa: S301
            except EOFError:
                return
            try:
                answer: object = [decoder(item, exclusive=turn(Path(lock_path))) for item in items]
            except SeitError as error:
                answer = error
            pickle.dump(answer, answers, protocol=5)
            answers.flush()


if __name__ == "__main__":
    main()
