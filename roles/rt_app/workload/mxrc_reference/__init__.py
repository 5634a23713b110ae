"""Reference workload: stands in for the MXRC processes until the real application is delivered.

One package, two programs; launcher.py, installed under their names, starts it. As `rt_process` it is the real-time
process: a SCHED_FIFO loop on its isolated core with locked memory. As `non_rt_process` (or with `--role non-rt`) it is
the other one: an ordinary process on the housekeeping cores. Both speak what the application speaks to its
surroundings, and need only the Python standard library (3.11 or later).

    main          the door: options, settings, then the application
    cli           the command line              settings      the four JSON files
    parts         what a process is made of     application   start, main thread, stop
    loop          the periodic loop             scheduling    policies, cores, threads
    checkpoints   files that outlive it         state         what is saved and taken over
    supervision   systemd: notify, watchdog, signals
    tasks, faults the two APIs that make it do something
    web           HTTP server                   pages, metrics  /health and its relatives, /metrics
    health        self check, memory by node    log           JSON lines (ECS)
    spans, export traces: made, then sent       system        C library, clock, atomic files

Threads, and why they are separate:

    main          signals, watchdog, health check; does no file I/O, so a slow disk cannot starve the watchdog
    cycle-loop    the loop; the only thread with a real-time policy; does no I/O and takes no lock
    housekeeping  checkpoints, NUMA statistics, garbage collection
    log-writer    log file and stderr
    span-export   OTLP over HTTP
    tasks         runs tasks one after the other
    http-*        health and metrics servers, one short-lived thread per request

Real-time notes. A Python loop shares the interpreter lock with its helpers, so a helper can delay it by the
switch interval (application.py) plus the length of one C call. That is fine for accepting a host and its telemetry;
the latency of a host is measured with cyclictest, not with this program.

Imports are few on purpose: they are most of the start-up time on a slow machine, and all their memory is locked. They
are relative, since this package is `mxrc_reference` on a host and lies deeper here.
"""
