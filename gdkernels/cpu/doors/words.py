"""What the words of tables and views mean: the language in which doors and native code speak of a call's arguments.

A table describes what an operation asks: a head of `HEAD_WORDS`, then `ARGUMENT_WORDS` for each argument. A view describes
one argument of a call, in `VIEW_WORDS`. All are int64; a float64 is held as its bits.
"""

# The head of a table.
COUNT, OPERANDS, ENTRY, ELEMENT, ITEM, TOTAL, RETURNS, VALUE_SLOT, FAULT_SLOT, OTHERWISE = range(10)
FIRST_COST, FIRST_DIMS, SECOND_COST, SECOND_DIMS = range(10, 14)
MEMORY_LEAST, MEMORY_EACH, MEMORY_DIMS = 14, 15, 24  # bytes of working memory behind what every kernel has
LETTER_SLOTS = 16  # where the record wants the dimensions, by letter
HEAD_WORDS = 32

# The words of an argument. A slot is a place in the record, or NOWHERE.
KIND, SLOT, ROW_SLOT, COLUMN_SLOT, NDIM, FIRST_DIM = range(6)  # and behind the first dimension the second
ASKS, LIKE, SWAPPED_BY, LOW, HIGH, CHOICES, UNLESS, NEEDED_IF, NUMBER_SLOT = range(7, 16)
ARGUMENT_WORDS = 16
ARRAY, NUMBER, WHOLE, TRUTH, NAME = range(5)  # KIND
OPTIONAL, STRIDED, WRITTEN, ALLOCATED, LABELS = 1, 2, 4, 8, 16  # bits of ASKS
NOWHERE = -1
ANY_SHAPE = -1  # NDIM

# The letters of the dimensions: those of the operation, then of arrays of any shape the number of their dimensions, their
# size and their last dimension.
LETTERS = 8
AXES, SIZE, LAST = 5, 6, 7
UNKNOWN = -1

# The words of a view: of an array as the caller has it, then where the kernel finds its elements (there, or in a copy that
# is in order), between which addresses the caller's lie, and how many there are; of another argument its value. PRESENT of
# an array of Python's is the address of its object.
PRESENT, DATA, DIMENSIONS, SHAPE, STRIDES, IS, PLACE, BEGIN, END, HOW_MANY = range(10)
VALUE = DATA
VIEW_WORDS = 10
IN_ORDER, IN_PLACE, MAY_WRITE, OF_ELEMENTS, OF_LABELS = 1, 2, 4, 8, 16  # bits of IS; in place: aligned

# What can be wrong with an argument: a fault is argument · FAULTS + one of these. 0 is none.
MISSING, DTYPE, DIMENSION, LAYOUT, READ_ONLY, OVERLAP, VALUE_RANGE = range(1, 8)
FAULTS = 8
ITEM_FAULTS = 1 << 10  # of several items: a fault is item · ITEM_FAULTS + the fault of that item

MOST_RECORD_WORDS = 32
NOT_READY = -1  # what stands for a loop that is not yet compiled, among the choices of a name

# What a call from Python gives: nothing (True), its only result, all of its results, or the number of a loss.
NOTHING, RESULT, RESULTS, LOSS = range(4)

# The memory of a door: addresses of Python's objects, then the tables for float32 and float64, and the limit of work above
# which a call is left to several threads, and whether the arrays of a norm are clipped. Behind that is what the interpreter
# reads of the function, and its name.
(
    NDARRAY, NONE, TRUE, FALSE, FLOAT, FLOAT64, INT, INT64, WORD, LIST, TUPLE, DTYPE_FLOAT32, DTYPE_FLOAT64,
    DTYPE_LABELS, TABLE_FLOAT32, TABLE_FLOAT64, MOST_WORK, CLIPS,
) = range(18)  # fmt: skip
METHOD, TITLE = 20, 24
DOOR_WORDS = 32

MOST_ARGUMENTS = 12
MOST_ITEMS = 512  # of lists: more are left to Python, which puts their addresses in order faster
LET_OTHERS_RUN = 20_000.0  # nanoseconds of work from which other Python threads may run meanwhile
# Bytes that a call from Python may need behind `SCRATCH_BYTES`: a thread keeps them, so larger calls do not belong here.
MOST_MEMORY = 32 << 20
