"""shem: services on the Golem Network, each instance an explicit finite-state machine."""
