"""Training: losses, optimizers, the Trainer that descends, data sets, and what is shown meanwhile."""
