"""A program that crawls in forked children, which a test kills: ``python -m tests.support.crawl_child``.

It reads one JSON object per line, the arguments of `greendata.crawl.crawl`, forks a child that crawls, and prints the
child's process id, and after its end the status. It has imported everything and run no query, so a child begins at
once.
"""

from __future__ import annotations

import json
import os
import sys

from greendata.crawl import crawl


def main() -> None:
    for line in sys.stdin:
        options = json.loads(line)
        seeds = options.pop("seeds")
        child = os.fork()
        if not child:
            status = 1
            try:
                crawl(seeds, **options).run()
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
