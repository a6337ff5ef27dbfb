"""A host joins a fleet: its key is made here, and here its certificate is put in place."""
