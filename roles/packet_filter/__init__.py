"""Who may reach the programs of a host."""
