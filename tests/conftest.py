"""What holds for every test."""

from hypothesis import settings

# The first example of a kernel compiles it, which says nothing about the next: no time limit on an example.
settings.register_profile("gdkernels", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("gdkernels")
