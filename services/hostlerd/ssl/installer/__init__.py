"""The installer: a small root-owned program that does for hostler-ssl what only root may do.

It makes private keys and keeps them, puts certificates in place below the folders that hostler.toml
names, has servers check their configuration and reload, looks at what they serve then, and goes
back if it is not the new certificate. No key ever leaves it but into the file that it belongs to.
Standard library and `cryptography` only; whatever it is sent is taken as hostile and held against
a closed grammar and against its own reading of hostler.toml.
"""
