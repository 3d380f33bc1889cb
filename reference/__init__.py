"""gdkernels in pure NumPy: every operation, short, in float64, with its derivation."""
