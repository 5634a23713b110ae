"""The dashboards, made from the same models as everything else (OB-14, OB-16).

Every metric is in metrics/catalogue.yaml, which a test compares. Each dashboard begins with a row of big coloured
numbers that someone without knowledge of the system can read: green is well.
"""

from __future__ import annotations

from roles.facets import Signal
from roles.grafana.datasources import uid
from roles.grafana.panels import GOOD_WHEN_ZERO, Dashboard, Query, Row, answer, bars, graph
from roles.shape import FleetView
from roles.shared import INFRA_TENANT

_HOST = 'host=~"$host"'
_HOSTS = ("host", "Host", "label_values(node_uname_info, host)")
_ENVIRONMENTS = ("env", "Environment", "label_values(rtinfra_preflight_runs_total, env)")
_BACKLOG = "otelcol_exporter_queue_size / otelcol_exporter_queue_capacity"
_FULLEST_DISK = (
    '1 - node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs|overlay|squashfs"} '
    '/ node_filesystem_size_bytes{fstype!~"tmpfs|ramfs|overlay|squashfs"}'
)
_YES_NO = {"1": ("Yes", "green"), "0": ("No", "red")}


def dashboards(view: FleetView) -> tuple[Dashboard, ...]:
    """Return the dashboards of a site; none where nothing stores metrics."""
    own, infra = uid(view, Signal.METRICS, view.telemetry.tenant), uid(view, Signal.METRICS, INFRA_TENANT)
    if own is None or infra is None:
        return ()
    return (system_overview(own), rt_host(own), telemetry_pipeline(infra), preflight(own))


def system_overview(datasource: str) -> Dashboard:
    """Is all well, and if not, where to look."""
    return Dashboard(
        uid="rtinfra-overview",
        title="System overview",
        description="Start here. Green is well; what is red says where to look next.",
        datasource=datasource,
        choices=(_HOSTS,),
        rows=(
            Row(
                "Is all well?",
                (
                    answer(
                        "Programs that do not answer",
                        "Every program is asked regularly. 0 is well.",
                        "count(up == 0) or vector(0)",
                        steps=GOOD_WHEN_ZERO,
                    ),
                    answer(
                        "Alerts",
                        "Alerts that are firing, without the one that always fires to prove that alerting works.",
                        'count(ALERTS{alertstate="firing", alertname!="Watchdog"}) or vector(0)',
                        steps=GOOD_WHEN_ZERO,
                    ),
                    answer(
                        "Missed deadlines, last hour",
                        "Real-time cycles that were done too late. 0 is well; every miss is worth a look.",
                        "sum(increase(mxrc_rt_deadline_miss_count_total[1h])) or vector(0)",
                        steps=GOOD_WHEN_ZERO,
                        decimals=0,
                    ),
                    answer(
                        "Processes not healthy",
                        "Processes of the application that report something else than healthy.",
                        "count(mxrc_process_health_status != 2) or vector(0)",
                        steps=GOOD_WHEN_ZERO,
                    ),
                    answer(
                        "Telemetry waiting",
                        "Fill of the fullest queue. It grows while a backend is away; at 100 % something is lost.",
                        f"max({_BACKLOG})",
                        "percentunit",
                        steps=((None, "green"), (0.5, "orange"), (0.8, "red")),
                        decimals=0,
                    ),
                    answer(
                        "Fullest disk",
                        "Use of the fullest file system of all hosts.",
                        f"max({_FULLEST_DISK})",
                        "percentunit",
                        steps=((None, "green"), (0.8, "orange"), (0.9, "red")),
                        decimals=0,
                    ),
                ),
            ),
            Row(
                "Application",
                (
                    graph(
                        "Health of processes",
                        "0 stopped, 1 starting, 2 healthy, 3 degraded, 4 unhealthy, 5 stopping.",
                        Query(f"mxrc_process_health_status{{{_HOST}}}", "{{host}} {{process}}"),
                    ),
                    graph(
                        "Log records by level",
                        "Records a second; many errors deserve a look into the logs.",
                        Query(
                            f"sum by (level) (rate(mxrc_logging_events_total{{{_HOST}}}[5m]))",
                            "{{level}}",
                        ),
                        unit="cps",
                        stacked=True,
                    ),
                    graph(
                        "HTTP requests",
                        "Requests a second by service, method and status.",
                        Query(
                            f"sum by (service, method, status) (rate(http_requests_total{{{_HOST}}}[5m]))",
                            "{{service}} {{method}} {{status}}",
                        ),
                        unit="reqps",
                        width=8,
                    ),
                    graph(
                        "HTTP errors",
                        "Share of requests answered with a status of 500 or more. The line is the alert's limit.",
                        Query(
                            f'sum by (service) (rate(http_requests_total{{status=~"5..", {_HOST}}}[5m])) '
                            f"/ sum by (service) (rate(http_requests_total{{{_HOST}}}[5m]))",
                            "{{service}}",
                        ),
                        unit="percentunit",
                        width=8,
                        steps=((None, "green"), (0.05, "red")),
                    ),
                    graph(
                        "HTTP duration",
                        "19 of 20 requests are answered within this time. Points are single requests with a trace.",
                        Query(
                            "histogram_quantile(0.95, sum by (service, endpoint, le) "
                            f"(rate(http_request_duration_seconds_bucket{{{_HOST}}}[5m])))",
                            "{{service}} {{endpoint}}",
                        ),
                        unit="s",
                        width=8,
                    ),
                ),
            ),
            Row(
                "Services",
                (
                    graph(
                        "Permission checks",
                        "Checks a second whether a user may do something, by result and role.",
                        Query(
                            f"sum by (result, role) (rate(rbac_permission_checks_total{{{_HOST}}}[5m]))",
                            "{{result}} {{role}}",
                        ),
                        unit="cps",
                        width=6,
                    ),
                    graph(
                        "Approvals",
                        "Requests for an approval a second, by what became of them.",
                        Query(
                            f"sum by (status) (rate(approval_requests_total{{{_HOST}}}[5m]))",
                            "{{status}}",
                        ),
                        unit="cps",
                        width=6,
                    ),
                    graph(
                        "Tools",
                        "Tools run a second, by tool and result.",
                        Query(
                            f"sum by (tool, status) (rate(mcp_tool_executions_total{{{_HOST}}}[5m]))",
                            "{{tool}} {{status}}",
                        ),
                        unit="cps",
                        width=6,
                    ),
                    graph(
                        "Processor use of services",
                        "As each service says of itself, in percent of one core.",
                        Query(
                            f'system_resource_usage{{resource_type="cpu", {_HOST}}}',
                            "{{host}} {{service}}",
                        ),
                        unit="percent",
                        width=6,
                    ),
                    graph(
                        "Memory of services",
                        "As each service says of itself.",
                        Query(
                            f'system_resource_usage{{resource_type="memory", {_HOST}}}',
                            "{{host}} {{service}}",
                        ),
                        unit="bytes",
                    ),
                    graph(
                        "Memory left on hosts",
                        "Share of memory that programs can still get.",
                        Query(
                            f"node_memory_MemAvailable_bytes{{{_HOST}}} / node_memory_MemTotal_bytes{{{_HOST}}}",
                            "{{host}}",
                        ),
                        unit="percentunit",
                    ),
                ),
            ),
        ),
    )


def rt_host(datasource: str) -> Dashboard:
    """What a real-time host does: deadlines, latency, cores, memory, clock."""
    return Dashboard(
        uid="rtinfra-rt-host",
        title="RT host",
        description="The real-time process of a host: does it keep its deadlines, and what disturbs it?",
        datasource=datasource,
        choices=(_HOSTS,),
        rows=(
            Row(
                "Is all well?",
                (
                    answer(
                        "Deadline misses, last hour",
                        "Cycles that were done too late. 0 is well.",
                        f"sum(increase(mxrc_rt_deadline_miss_count_total{{{_HOST}}}[1h])) or vector(0)",
                        steps=GOOD_WHEN_ZERO,
                        decimals=0,
                    ),
                    answer(
                        "Miss rate",
                        "Share of cycles missed in the last minute. Less than 1 in 10000 is required.",
                        f"max(mxrc_rt_deadline_miss_rate{{{_HOST}}})",
                        "percentunit",
                        steps=((None, "green"), (0.0001, "red")),
                    ),
                    answer(
                        "Jitter",
                        "99 of 100 cycles of the last minute began no later than this.",
                        f"max(mxrc_rt_jitter_us{{{_HOST}}})",
                        "µs",
                        steps=((None, "green"), (50, "orange"), (100, "red")),
                    ),
                    answer(
                        "Memory on its own node",
                        "Share of the real-time process's memory on the node of its cores. Less means slower access.",
                        f'min(mxrc_numa_local_memory_percent{{process="rt_process", {_HOST}}})',
                        "percent",
                        steps=((None, "red"), (90, "orange"), (95, "green")),
                        decimals=1,
                    ),
                    answer(
                        "Memory locked",
                        "The real-time process must never wait for a disk.",
                        f"min(mxrc_rt_memory_locked{{{_HOST}}})",
                        steps=((None, "red"), (1, "green")),
                        texts=_YES_NO,
                    ),
                    answer(
                        "Clock follows a server",
                        "Without it times of different hosts do not fit together.",
                        f"min(node_timex_sync_status{{{_HOST}}})",
                        steps=((None, "red"), (1, "green")),
                        texts=_YES_NO,
                    ),
                ),
            ),
            Row(
                "Real-time loop",
                (
                    graph(
                        "Cycles a second",
                        "A loop with a period of 1 ms makes 1000.",
                        Query(f"rate(mxrc_rt_cycle_count_total{{{_HOST}}}[1m])", "{{host}}"),
                        unit="cps",
                        width=8,
                    ),
                    graph(
                        "Missed deadlines",
                        "Misses in each minute.",
                        Query(f"increase(mxrc_rt_deadline_miss_count_total{{{_HOST}}}[1m])", "{{host}}"),
                        width=8,
                    ),
                    graph(
                        "Miss rate",
                        "Share of missed cycles in the last minute. The line is the limit.",
                        Query(f"mxrc_rt_deadline_miss_rate{{{_HOST}}}", "{{host}}"),
                        unit="percentunit",
                        width=8,
                        steps=((None, "green"), (0.0001, "red")),
                    ),
                    graph(
                        "Start latency",
                        "How late cycles begin: 99 of 100, and the latest of the last minute.",
                        Query(f"mxrc_rt_jitter_us{{{_HOST}}}", "{{host}} 99 %"),
                        Query(f"mxrc_rt_jitter_max_us{{{_HOST}}}", "{{host}} latest"),
                        unit="µs",
                    ),
                    graph(
                        "Time of a cycle",
                        "How long the work of a cycle takes: on average, and 99 of 100.",
                        Query(
                            f"rate(mxrc_rt_cycle_time_us_sum{{{_HOST}}}[1m]) "
                            f"/ rate(mxrc_rt_cycle_time_us_count{{{_HOST}}}[1m])",
                            "{{host}} average",
                        ),
                        Query(
                            "histogram_quantile(0.99, sum by (host, le) "
                            f"(rate(mxrc_rt_cycle_time_us_bucket{{{_HOST}}}[1m])))",
                            "{{host}} 99 %",
                        ),
                        unit="µs",
                    ),
                ),
            ),
            Row(
                "Processes",
                (
                    graph(
                        "Health",
                        "0 stopped, 1 starting, 2 healthy, 3 degraded, 4 unhealthy, 5 stopping.",
                        Query(f"mxrc_process_health_status{{{_HOST}}}", "{{host}} {{process}}"),
                        width=8,
                    ),
                    graph(
                        "Restarts after a failure",
                        "It must not grow.",
                        Query(f"mxrc_process_restart_count_total{{{_HOST}}}", "{{host}} {{process}}"),
                        width=8,
                    ),
                    graph(
                        "Memory on its own node",
                        "Share of each process's memory on its configured NUMA node.",
                        Query(
                            f"mxrc_numa_local_memory_percent{{{_HOST}}}",
                            "{{host}} {{process}}",
                        ),
                        unit="percent",
                        width=8,
                    ),
                    graph(
                        "Log records",
                        "Records a second by process and level.",
                        Query(
                            f"sum by (process, level) (rate(mxrc_logging_events_total{{{_HOST}}}[1m]))",
                            "{{process}} {{level}}",
                        ),
                        unit="cps",
                        width=8,
                    ),
                    graph(
                        "Traces kept",
                        "Share of tasks that are traced, as configured.",
                        Query(f"mxrc_tracing_sampling_rate{{{_HOST}}}", "{{host}} {{process}}"),
                        unit="percentunit",
                        width=8,
                    ),
                    graph(
                        "Spans lost in the application",
                        "Spans a second that could not be handed over. 0 is well.",
                        Query(f"rate(mxrc_tracing_spans_dropped_total{{{_HOST}}}[1m])", "{{host}} {{process}}"),
                        unit="cps",
                        width=8,
                    ),
                ),
            ),
            Row(
                "Host",
                (
                    graph(
                        "Use of each core",
                        "Isolated cores show the real-time work only.",
                        Query(
                            f'1 - rate(node_cpu_seconds_total{{mode="idle", {_HOST}}}[1m])',
                            "{{host}} core {{cpu}}",
                        ),
                        unit="percentunit",
                    ),
                    graph(
                        "Something waits",
                        "Share of time in which some program waited for a processor, a disk or memory.",
                        Query(f"rate(node_pressure_cpu_waiting_seconds_total{{{_HOST}}}[1m])", "{{host}} processor"),
                        Query(f"rate(node_pressure_io_waiting_seconds_total{{{_HOST}}}[1m])", "{{host}} disk"),
                        Query(f"rate(node_pressure_memory_waiting_seconds_total{{{_HOST}}}[1m])", "{{host}} memory"),
                        unit="percentunit",
                    ),
                    graph(
                        "Temperature",
                        "A hot processor lowers its clock.",
                        Query(f"max by (host, chip) (node_hwmon_temp_celsius{{{_HOST}}})", "{{host}} {{chip}}"),
                        unit="celsius",
                        width=8,
                    ),
                    graph(
                        "Clock offset",
                        "How far the clock is from its server.",
                        Query(f"node_timex_offset_seconds{{{_HOST}}}", "{{host}}"),
                        unit="s",
                        width=8,
                    ),
                    bars(
                        "File systems",
                        "How full each is.",
                        Query(
                            f'1 - node_filesystem_avail_bytes{{fstype!~"tmpfs|ramfs", {_HOST}}} '
                            f'/ node_filesystem_size_bytes{{fstype!~"tmpfs|ramfs", {_HOST}}}',
                            "{{host}} {{mountpoint}}",
                        ),
                        unit="percentunit",
                        width=8,
                        steps=((None, "green"), (0.8, "orange"), (0.9, "red")),
                    ),
                ),
            ),
        ),
    )


def telemetry_pipeline(datasource: str) -> Dashboard:
    """From agents through gateways into the backends: does anything wait or get lost?"""
    kinds = (("spans", "Spans"), ("metric_points", "Metric points"), ("log_records", "Log records"))

    def lost(what: str) -> str:
        return " + ".join(
            f"sum(increase(otelcol_exporter_{how}_failed_{what}_total[1h]) or vector(0))" for how in ("enqueue", "send")
        )

    return Dashboard(
        uid="rtinfra-telemetry",
        title="Telemetry pipeline",
        description="Agents, gateways and backends: does anything wait, and was anything lost?",
        datasource=datasource,
        rows=(
            Row(
                "Is all well?",
                (
                    answer(
                        "Fullest queue",
                        "It grows while a backend is away; at 100 % senders are made to wait.",
                        f"max({_BACKLOG})",
                        "percentunit",
                        steps=((None, "green"), (0.5, "orange"), (0.8, "red")),
                        decimals=0,
                    ),
                    *(
                        answer(
                            f"{title} lost, last hour",
                            "Refused by a full queue or given up. 0 is well.",
                            lost(what),
                            steps=GOOD_WHEN_ZERO,
                            decimals=0,
                        )
                        for what, title in kinds
                    ),
                    answer(
                        "Alerts not delivered",
                        "Messages of the last hour that a receiver did not take.",
                        "sum(increase(alertmanager_notifications_failed_total[1h])) or vector(0)",
                        steps=GOOD_WHEN_ZERO,
                        decimals=0,
                    ),
                    answer(
                        "Alerting proves itself",
                        "Time since the alert that always fires came. While it stays away, no other would come.",
                        "min(rtinfra_alert_log_seconds_since_watchdog)",
                        "s",
                        steps=((None, "green"), (300, "orange"), (600, "red")),
                        decimals=0,
                    ),
                ),
            ),
            Row(
                "Collectors",
                (
                    *(
                        graph(
                            f"{title}: in and out",
                            "Taken in and delivered each second, all collectors together, by host.",
                            Query(f"sum by (host) (rate(otelcol_receiver_accepted_{what}_total[1m]))", "{{host}} in"),
                            Query(f"sum by (host) (rate(otelcol_exporter_sent_{what}_total[1m]))", "{{host}} out"),
                            Query(
                                f"sum by (host) (rate(otelcol_receiver_refused_{what}_total[1m]))", "{{host}} sent back"
                            ),
                            unit="cps",
                            width=8,
                        )
                        for what, title in kinds
                    ),
                    graph(
                        "Queues",
                        "Fill of each queue. The line is where an alert comes.",
                        Query(_BACKLOG, "{{host}} {{exporter}} {{data_type}}"),
                        unit="percentunit",
                        steps=((None, "green"), (0.8, "red")),
                    ),
                    graph(
                        "Memory of collectors",
                        "Each has a limit; above it new data is refused.",
                        Query("otelcol_process_memory_rss_bytes", "{{host}} {{job}}"),
                        unit="bytes",
                    ),
                ),
            ),
            Row(
                "Backends",
                (
                    graph(
                        "Samples stored",
                        "Samples a second in Prometheus.",
                        Query("sum by (host) (rate(prometheus_tsdb_head_samples_appended_total[1m]))", "{{host}}"),
                        unit="cps",
                        width=8,
                    ),
                    graph(
                        "Series",
                        "Series at this time in Prometheus. A jump means a label with too many values.",
                        Query("prometheus_tsdb_head_series", "{{host}}"),
                        width=8,
                    ),
                    graph(
                        "Samples refused",
                        "Samples a second that came too late.",
                        Query("sum by (host) (rate(prometheus_tsdb_too_old_samples_total[5m]))", "{{host}} too old"),
                        Query(
                            "sum by (host) (rate(prometheus_tsdb_out_of_order_samples_total[5m]))",
                            "{{host}} out of order",
                        ),
                        unit="cps",
                        width=8,
                    ),
                    graph(
                        "Jaeger: requests to its storage",
                        "Requests a second by result.",
                        Query(
                            "sum by (operation, result) (rate(jaeger_storage_requests_total[5m]))",
                            "{{operation}} {{result}}",
                        ),
                        unit="reqps",
                        width=8,
                    ),
                    graph(
                        "Messages of alerts",
                        "Messages in five minutes by receiver, and those that failed.",
                        Query(
                            "sum by (integration) (increase(alertmanager_notifications_total[5m]))", "{{integration}}"
                        ),
                        Query(
                            "sum by (integration) (increase(alertmanager_notifications_failed_total[5m]))",
                            "{{integration}} failed",
                        ),
                        width=8,
                    ),
                    graph(
                        "Slow targets",
                        "Time the slowest five programs take to show their metrics.",
                        Query("topk(5, scrape_duration_seconds)", "{{host}} {{job}}"),
                        unit="s",
                        width=8,
                    ),
                ),
            ),
        ),
    )


def preflight(datasource: str) -> Dashboard:
    """May this system go live, and does it still comply?"""
    env = 'env=~"$env"'

    def latency(what: str, title: str) -> Query:
        bucket = f"rtinfra_preflight_realcheck_{what}_latency_seconds_bucket"
        return Query(
            f"histogram_quantile(0.95, sum by (env, le) (rate({bucket}{{{env}}}[1d])))", f"{title} {{{{env}}}}"
        )

    return Dashboard(
        uid="rtinfra-preflight",
        title="Preflight and compliance",
        description="May this system go live, and does it still comply with its controls?",
        datasource=datasource,
        choices=(_ENVIRONMENTS,),
        rows=(
            Row(
                "Preflight",
                (
                    answer(
                        "Ready to go live",
                        "The last preflight found nothing that forbids it.",
                        f"min(rtinfra_preflight_ready_for_live{{{env}}})",
                        steps=((None, "red"), (1, "green")),
                        texts=_YES_NO,
                        width=6,
                    ),
                    answer(
                        "Since the last good preflight",
                        "Time since a run without a failed check. More than half an hour is too long.",
                        f"time() - min(rtinfra_preflight_last_success{{{env}}})",
                        "s",
                        steps=((None, "green"), (1200, "orange"), (1800, "red")),
                        decimals=0,
                        width=6,
                    ),
                    answer(
                        "Runs, last day",
                        "How often the preflight ran.",
                        f"sum(increase(rtinfra_preflight_runs_total{{{env}}}[1d]))",
                        steps=((None, "blue"),),
                        decimals=0,
                        width=6,
                    ),
                    answer(
                        "Failed checks, last day",
                        "Checks that did not pass in the runs of the last day.",
                        f'sum(increase(rtinfra_preflight_checks_total{{status=~"(?i)fail.*", {env}}}[1d])) '
                        "or vector(0)",
                        steps=GOOD_WHEN_ZERO,
                        decimals=0,
                        width=6,
                    ),
                    bars(
                        "Checks by result",
                        "Checks of the last day by name and result.",
                        Query(
                            f"sum by (check, status) (increase(rtinfra_preflight_checks_total{{{env}}}[1d]))",
                            "{{check}} {{status}}",
                        ),
                        width=8,
                    ),
                    graph(
                        "Duration of a run",
                        "On average over a day.",
                        Query(
                            f"rate(rtinfra_preflight_duration_seconds_sum{{{env}}}[1d]) "
                            f"/ rate(rtinfra_preflight_duration_seconds_count{{{env}}}[1d])",
                            "{{env}}",
                        ),
                        unit="s",
                        width=8,
                    ),
                    graph(
                        "Answer of data bases",
                        "19 of 20 real requests to Redis and PostgreSQL were answered within this time.",
                        latency("redis", "Redis"),
                        latency("postgres", "PostgreSQL"),
                        unit="s",
                        width=8,
                    ),
                ),
            ),
            Row(
                "Compliance",
                (
                    answer(
                        "Controls that fail",
                        "Rules the system must follow and does not. 0 is well.",
                        'sum(rtinfra_compliance_controls{status=~"(?i)fail.*"}) or vector(0)',
                        steps=GOOD_WHEN_ZERO,
                        width=6,
                    ),
                    answer(
                        "Controls that hold",
                        "Rules that were checked and hold.",
                        'sum(rtinfra_compliance_controls{status=~"(?i)pass.*"})',
                        steps=((None, "blue"),),
                        width=6,
                    ),
                    answer(
                        "Last check",
                        "Time since the controls were last checked. More than a day is too long.",
                        "time() - min(rtinfra_compliance_last_run_timestamp_seconds)",
                        "s",
                        steps=((None, "green"), (86400, "orange"), (172800, "red")),
                        decimals=0,
                        width=6,
                    ),
                    answer(
                        "Metrics that cannot be read",
                        "Files with metrics of checks that node_exporter could not read.",
                        "sum(node_textfile_scrape_error)",
                        steps=GOOD_WHEN_ZERO,
                        width=6,
                    ),
                    graph(
                        "Controls by result",
                        "How the results develop.",
                        Query("sum by (status) (rtinfra_compliance_controls)", "{{status}}"),
                        stacked=True,
                        width=24,
                    ),
                ),
            ),
            Row(
                "Drift",
                (
                    answer(
                        "Things that drifted",
                        "Files, services and values of the kernel that no deploy made what they are. 0 is well.",
                        "sum(rtinfra_drift_items) or vector(0)",
                        steps=GOOD_WHEN_ZERO,
                        width=6,
                    ),
                    answer(
                        "Hosts that drifted",
                        "Hosts with at least one such thing. Deploy them again.",
                        "count(sum by (host) (rtinfra_drift_items) > 0) or vector(0)",
                        steps=GOOD_WHEN_ZERO,
                        width=6,
                    ),
                    answer(
                        "Oldest check",
                        "Time since the host whose check is the oldest looked at itself. More than a day is too long.",
                        "time() - min(rtinfra_drift_last_run_timestamp_seconds)",
                        "s",
                        steps=((None, "green"), (93600, "red")),
                        decimals=0,
                        width=6,
                    ),
                    answer(
                        "Hosts that check themselves",
                        "Hosts whose own check has left a result.",
                        "count(rtinfra_drift_last_run_timestamp_seconds)",
                        steps=((None, "blue"),),
                        width=6,
                    ),
                    bars(
                        "What drifted",
                        "By host and name. `journalctl -u rtinfra-drift` on the host says what was expected and found.",
                        Query("rtinfra_drift_found", "{{host}} {{kind}} {{name}}"),
                        width=12,
                    ),
                    graph(
                        "Drift by kind",
                        "When it began, and when a deploy ended it.",
                        Query("sum by (host, kind) (rtinfra_drift_items) > 0", "{{host}} {{kind}}"),
                        stacked=True,
                        width=12,
                    ),
                ),
            ),
        ),
    )
