"""run_tests.py [TEST...]: run the test functions of the modules beside this file, all or those named.

TEST is a module (test_driver) or a function (test_atomics). No test framework is needed; a test that raises
unittest.SkipTest is skipped. The last line is 'N passed, N failed', with ', N skipped' where some were.
"""

import importlib
import os
import sys
import time
import traceback
import unittest
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))


def run_test(name, test):
    """Run one test and print its result: 'ok', 'FAILED' or 'skipped'."""
    start, why = time.time(), ""
    try:
        test()
        result = "ok"
    except unittest.SkipTest as e:
        result, why = "skipped", f": {e}"
    except Exception:
        traceback.print_exc()
        result = "FAILED"
    print(f"{name}: {result}{why} ({time.time() - start:.1f} s)", flush=True)
    return result


def main(wanted):
    warnings.simplefilter("ignore")
    sys.path.insert(0, HERE)
    results = {}
    modules = sorted(f[:-3] for f in os.listdir(HERE) if f.startswith("test_") and f.endswith(".py"))
    for module in modules:
        if wanted and module not in wanted and not any(w not in modules for w in wanted):
            continue
        functions = vars(importlib.import_module(module)).copy()
        for name, function in functions.items():
            if name.startswith("test_") and (not wanted or {module, name} & set(wanted)):
                results[f"{module}.{name}"] = run_test(f"{module}.{name}", function)
    count = {r: list(results.values()).count(r) for r in ("ok", "FAILED", "skipped")}
    if count["FAILED"]:
        print("failed:", ", ".join(name for name, r in results.items() if r == "FAILED"))
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"{count['ok']} passed, {count['FAILED']} failed{skipped}")
    return 1 if count["FAILED"] or not results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
