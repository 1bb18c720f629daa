"""The steps of flows: `tasks/<topic>/plan.py` decides, `tasks/<topic>/steps.py` acts."""
