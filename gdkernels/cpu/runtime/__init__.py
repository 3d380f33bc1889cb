"""What every CPU kernel stands on: compilation, vectors, elementary functions, memory, threads. It knows no operation."""
