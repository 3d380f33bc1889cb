"""The place of the CUDA kernels, the twins of `gdkernels.cpu`. This version has none yet."""
