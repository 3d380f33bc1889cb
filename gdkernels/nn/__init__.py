"""Networks: what they are made of (`layers`), what they compute (`plan`), their parameters (`network`)."""
