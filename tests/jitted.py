"""Functions of a user that take views: few, because each is compiled for every type of its arguments."""

from numba import njit


@njit
def predict(view, x):
    return view.predict(x)


@njit
def predict_into(view, x, out):
    return view.predict(x, out)


@njit
def vjp(view, x, dy):
    return view.vjp(x, dy)


@njit
def vjp_into(view, x, dy, dx):
    return view.vjp(x, dy, dx=dx)


@njit
def step(view, x, y):
    return view.step(x, y)
