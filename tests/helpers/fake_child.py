"""A child for tests of `slimjax.worker` and of profiles: answers, sleeps, dies, or prints what is no answer."""

import os
import sys
import time

from slimjax.worker import serve


def begin(spec):
    count = 0

    def answer(question):
        nonlocal count
        count += 1
        match question["unit"]:
            case "sleeps":
                time.sleep(60)
            case "dies":
                print("last words", file=sys.stderr, flush=True)
                os._exit(3)
            case "raises":
                raise ValueError("cannot be compiled\nand so on")
            case "chats":
                print("a library's banner")
        return {"median_ms": 1.0 + sum(question["sizes"]), "spread_ms": 0.0, "outlier": False, "count": count}

    if spec == "refuses":
        raise ValueError("no such device")
    # A profile names its file of readings by all that a child says of itself.
    pid = {} if isinstance(spec, dict) else {"pid": os.getpid()}
    return {"device": "fake", "versions": {}, **pid}, answer


if __name__ == "__main__":
    serve(begin)
