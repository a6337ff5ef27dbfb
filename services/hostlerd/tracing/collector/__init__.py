"""The process that loads the BPF program of one trace and turns its records into blocks."""
