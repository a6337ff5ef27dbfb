"""The chisels that come with Hostler: each file is one, and has a CHISEL."""
