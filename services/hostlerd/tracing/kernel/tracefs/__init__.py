"""The engine for whole hosts where the kernel runs no BPF program: tracefs, read as binary."""
