"""Runs plans on the CPU: `engine` owns the memory, `program` binds calls to it, `epoch` is the native code that runs."""
