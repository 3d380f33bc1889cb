"""Where CuPy keeps how it multiplies."""
