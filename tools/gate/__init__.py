"""The static gate (``python -m tools.gate``): `sass` reads machine code, `judgement` holds kernels against their budgets."""
