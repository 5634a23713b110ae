"""The PREEMPT_RT kernel and its command line."""
