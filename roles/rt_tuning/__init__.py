"""Everything around the kernel that keeps the isolated cores quiet."""
