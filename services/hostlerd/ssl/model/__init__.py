"""What certificates, keys, endpoints and libraries of a host are."""
