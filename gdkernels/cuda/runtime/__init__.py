"""What every CUDA kernel stands on: the target, compilation, the driver, pointers, arrays. It knows no operation."""
