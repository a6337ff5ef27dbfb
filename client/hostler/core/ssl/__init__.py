"""Certificates, chains and endpoints: what client and daemons both read, build and judge."""
