"""Doors in processes of their own: first calls, forks, ends, and interpreters whose objects cannot be read."""

import os
import subprocess
import sys

import pytest

BEGIN = """
import faulthandler, os, sys, threading
faulthandler.enable()
import numpy as np
import gdkernels as gd
x, w = np.ones((6, 5), "f4"), np.ones((5, 7), "f4")
"""


def said(code: str, **environment: str) -> str:
    """What a new process prints that runs this; it must end well."""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::RuntimeWarning", "-c", BEGIN + code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )
    assert run.returncode == 0, run.stderr
    assert "Fatal" not in run.stderr and "Exception ignored" not in run.stderr, run.stderr
    return run.stdout


def test_an_error_of_the_very_first_call_is_the_right_one():
    code = """
for call, expected in (
    (lambda: gd.linear(x, w.T), ValueError),
    (lambda: gd.adam_step(x, x.copy(), x.copy(), x[:2].copy(), 1, 0.1), ValueError),
    (lambda: gd.softmax_cross_entropy(x, np.full(6, 9)), ValueError),
    (lambda: gd.clip_by_global_norm(1.0, w, w), ValueError),
    (lambda: gd.softmax("x"), TypeError),
):
    for _ in range(2):
        try:
            call()
        except expected as error:
            print(error)
print(gd.linear(x, w)[0, 0])
"""
    lines = said(code).splitlines()
    assert lines[0::2] == [*lines[1::2], "5.0"]
    assert lines[0].startswith("linear: w has shape (7, 5), expected (5, n)")
    assert lines[4] == "softmax_cross_entropy: target[0] is 9, expected a class in [0, 5)"
    assert lines[8].startswith("softmax: x is of type str")


def test_first_calls_of_several_threads_at_once():
    code = """
gd.set_threads(1)
results, together = [], threading.Barrier(8)
def first(number):
    dtype = ("f4", "f8")[number % 2]
    a, b = x.astype(dtype), w.astype(dtype)
    together.wait()
    for kind in ("relu", "tanh", "gelu"):
        results.append(float(gd.linear(a, b, None, kind).sum()) > 0)
        gd.sgd_step([a], [a.copy()], None, 0.1)
callers = [threading.Thread(target=first, args=(number,)) for number in range(8)]
[one.start() for one in callers]
[one.join() for one in callers]
enter = gd.linear.__globals__["enter"]
print(len(results), all(results), enter(x, w, None, "gelu", None, None) is not None)
print(enter(x.astype("f8"), w.astype("f8"), None, "tanh", None, None) is not None)
"""
    assert said(code).split() == ["24", "True", "True", "True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_during_a_long_call():
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
gd.set_threads(1)
a, stop = np.ones((400, 400), "f4"), threading.Event()
gd.matmul(a, a), gd.linear(x, w)
enter = gd.matmul.__globals__["enter"]
def busy():
    while not stop.is_set():
        enter(a, a, False, False, None, False)
worker = threading.Thread(target=busy)
worker.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        right = gd.linear(x, w)[0, 0] == 5 and gd.matmul(a, a)[0, 0] == 400 and gd.softmax(x).sum() > 5
        os._exit(0 if right else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
worker.join()
"""
    assert said(code).split() == ["0"] * 10


def test_calls_at_the_end_of_a_process():
    """By what is deleted then, by atexit, and by a thread that is still in a kernel."""
    code = """
import atexit
gd.set_threads(1)
class Last:
    def __del__(self, gd=gd, x=x, w=w):
        assert gd.linear(x, w)[0, 0] == 5
last, again = Last(), Last()
sys.modules["last"] = last
again.itself = again  # goes with the last collection
atexit.register(lambda: gd.linear(x, w))
a = np.ones((900, 900), "f4")
gd.matmul(a, a)
def busy():
    while True:
        gd.matmul(a, a)
threading.Thread(target=busy, daemon=True).start()
print("ends")
"""
    for _ in range(3):
        assert said(code) == "ends\n"


def test_where_objects_cannot_be_read_every_call_goes_the_checked_way():
    code = """
from gdkernels.cpu.runtime import objects
objects.READABLE = False
for _ in range(2):
    print(gd.linear(x, w)[0, 0], gd.global_norm(x) > 5, gd.sgd_step(x, x.copy(), None, 0.0))
print(gd.linear.__globals__["enter"](x, w))
try:
    gd.linear(x, w.T)
except ValueError as error:
    print(error)
"""
    lines = said(code).splitlines()
    assert lines[:3] == ["5.0 True None", "5.0 True None", "None"] and lines[3].startswith(
        "linear: w has shape"
    )


def test_the_doors_under_a_checking_allocator():
    code = """
gd.set_threads(1)
for _ in range(300):
    da = gd.linear(x, w, None, "tanh")
    gd.linear_backward(da, x, w, da, "tanh")
    gd.softmax_cross_entropy(da, np.zeros(6, np.int64))
    gd.adam_step([x.copy()], [x], [x.copy()], [x.copy()], 1, 0.1)
    gd.clip_by_global_norm(1.0, [da, da.copy()])
    try:
        gd.softmax_cross_entropy(da, np.full(6, 9))
    except ValueError:
        pass
print("ends")
"""
    assert said(code, PYTHONMALLOC="debug") == "ends\n"


def test_warmup_compiles_what_is_behind_the_doors():
    code = """
from gdkernels.cli.warmup import natives
from gdkernels.cpu import doors
found = {native.name for native in natives()}
needed = {doors.find(name).kernel.name for name in doors.NAMES if hasattr(doors.find(name), "kernel")}
print(needed <= found, {"doors.front.enter", "doors.clip.enter_norm", "doors.lists.call_each"} <= found)
"""
    assert said(code).split() == ["True", "True"]
