"""The schedules inside ``@njit``: pure functions of a step, which Numba compiles as they are."""

from numba.extending import register_jitable

from ..scalar.schedules import SCHEDULES

for _schedule in SCHEDULES.values():
    register_jitable(_schedule.rate)
