"""What rtinfra does on the computer it runs on: start programs, tell progress, find the Debian archive."""
