"""How Causeway is run: the command, the served deployments, the embedded estate and the example estates."""
