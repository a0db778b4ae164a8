"""The child process of `drive_elsewhere`: read the load from a JSON argument, and write the outcome to stdout."""

__all__ = ("main",)

import dataclasses
import json
import sys

from examples.demo.figures import DemoError, Load
from examples.demo.load import drive


def main() -> None:
    order = json.loads(sys.argv[1])
    try:
        outcome = drive(Load(**order["load"]), host=order["host"], port=order["port"])
    except DemoError as error:
        sys.exit(str(error))
    print(json.dumps(dataclasses.asdict(outcome)))


if __name__ == "__main__":
    main()
