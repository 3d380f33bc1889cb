"""A section in a process of its own: ``python -m bench.gpu.worker SECTION REQUEST``, called by `conductor`.

REQUEST is JSON: the options of `lab.Lab`, and how many items to skip. What happens is told on stdout, a line of JSON each:
{"item": name, "number": i} before an item, {"row": {…}}, {"failed": why}, {"cut": [names]}, and {"end": true}. All that
libraries print goes to stderr. After a failure with which the device cannot be used any more, the process ends without an
"end", and another one goes on with the next item.
"""

import importlib
import json
import os
import sys
from typing import Any

from ..record import plain
from .lab import Lab


def main() -> None:
    section, request = sys.argv[1], json.loads(sys.argv[2])
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)

        def tell(**message: Any) -> None:
            print(json.dumps(plain(message)), file=channel, flush=True)

        work(section, Lab(**request["lab"]), request["skip"], tell)


def work(section: str, lab: Lab, skip: int, tell: Any) -> None:
    """All items of a section from the one numbered `skip` on."""
    items = importlib.import_module(f"bench.gpu.{section}").items(lab)
    for number, (name, run) in enumerate(items[skip:], start=skip):
        if lab.left() <= 0:
            tell(cut=[name for name, _ in items[number:]])
            break
        tell(item=name, number=number)
        lab.share(len(items) - number)
        try:
            lab.forget()
            for row in run():
                tell(**row) if "failed" in row else tell(row=row)
        except Exception as error:  # one item fails, the others go on
            tell(failed=f"{type(error).__name__}: {' '.join(str(error).split())}")
            if not lab.is_alive():
                return
    tell(end=True)


if __name__ == "__main__":
    main()
