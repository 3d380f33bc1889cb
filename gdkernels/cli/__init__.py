"""The command `gdkernels`: train, info, warmup, verify."""
