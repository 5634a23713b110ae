"""What is observed on a host. Every fact is one command, however many things it looks at."""
