"""What keeps this machine from reaching its hosts, asked in the order in which it matters."""
