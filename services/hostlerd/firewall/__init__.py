"""The firewall domain: the table `inet hostler`, and the sysctls that forwarding needs."""
