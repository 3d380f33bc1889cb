"""A section in a process of its own: ``python -m bench.gpu.worker REQUEST``, called by `conductor`.

REQUEST is JSON: {"section": name, "lab": options of `lab.Lab`, "skip": how many items to skip}. What happens is told on
stdout, a line of JSON each: {"item": name, "number": i} before an item, {"row": {…}}, {"failed": why}, {"cut": [names]},
and {"end": true}. After a failure with which the device cannot be used any more, the process ends without an "end", and
another one goes on with the next item.
"""

import importlib
import json
import sys
from typing import Any

from ..record import plain
from ..worker import reason, telling
from .lab import Lab


def main() -> None:
    request = json.loads(sys.argv[1])
    with telling() as tell:
        work(request["section"], Lab(**request["lab"]), request["skip"], tell)


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
                tell(**row) if "failed" in row else tell(row=plain(row))
        except Exception as error:  # one item fails, the others go on
            tell(failed=reason(error))
            if not lab.is_alive():
                return
    tell(end=True)


if __name__ == "__main__":
    main()
