"""The ssl domain: certificates, keys, endpoints and the libraries that speak TLS."""
