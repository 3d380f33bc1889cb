"""Runs plans on CUDA: `engine` owns the memory and the graphs, `program` turns calls into launches, `epoch` feeds them."""
