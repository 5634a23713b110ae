"""One room for each thing that verification looks at on a host.

A look is a module with `ask(questions)`, the shell commands by the name of the section that each prints, and
`read(answer)`, what was seen, typed. `rtinfra.verify.snapshot` is the sum of all looks: one script, one round trip.

Commands are POSIX sh with what a bare Debian has. Forks are what costs on a slow machine, so files are read by the
hundred with one grep, and units by the dozen with one systemctl. A section whose name ends in `_before` is asked
before all others, one that ends in `_after` after all others: what differs came to be while we watched.
"""
