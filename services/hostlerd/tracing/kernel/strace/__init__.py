"""The engine for single processes where the kernel runs no BPF program: strace(1), and its text."""
