"""What a deploy would do to hosts, told before it happens; and doing it, with a record of what was done.

A worker process (`worker`) prepares the operations of deploy.py with pyinfra, tells as events (`session`) what they
would change, and carries them out when it is told to. Everything else here works on what it told.
"""
