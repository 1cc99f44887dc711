//! The log with its shards, and the process with its store and limits.

use super::Kind::{Spread, Stat};
use super::Unit::{Bytes, Count, PerSecond, Seconds, Share};
use super::{Board, Panel};

pub(super) fn log() -> Board {
    Board {
        name: "log",
        title: "Trunkline: log and shards",
        description: "From the durable append to the decision: which shard or partition is late, and why.",
        height: 8,
        panels: vec![
            Panel::lines("Produce latency by topic, p99", Seconds).note("To the durable acknowledgement.").query(
                "{{topic}}",
                "histogram_quantile(0.99, sum by (le, topic) (rate(trunkline_log_produce_duration_seconds_bucket[R])))",
            ),
            Panel::lines("Producer queue fill", Share)
                .note("Back-pressure begins at 80 %.")
                .query(
                    "{{instance}}",
                    "max by (instance) (trunkline_log_producer_queue_records / trunkline_log_producer_queue_limit_records)",
                )
                .steps("green", &[(0.8, "red")])
                .alerts(&["TrunklineShedding"])
                .may_be_zero("the queue is empty whenever it is looked at"),
            Panel::lines("Spool", Count)
                .note("Records that a gateway took while Kafka was away, and that Kafka does not have yet.")
                .query("{{instance}}", "sum by (instance) (trunkline_log_spool_records)")
                .alerts(&["TrunklineSpoolInUse"])
                .may_be_zero("used only while Kafka is away"),
            Panel::new("Lag by partition", Spread, Seconds)
                .note("Hot partitions stand out at the top.")
                .query("{{topic}} {{partition}}", "trunkline_log_consumer_lag_seconds")
                .alerts(&["TrunklineConsumerStalled", "TrunklineConsumerLagGrowing"])
                .may_be_zero("records are read faster than they are looked at"),
            Panel::lines("Time to catch up", Seconds)
                .note("Lag divided by the rate at which it is worked off.")
                .query(
                    "{{topic}} {{group}}",
                    "sum by (topic, group) (trunkline_log_consumer_lag_records) \
                     / clamp_min(sum by (topic, group) (rate(trunkline_log_consumed_records_total[R])), 1)",
                )
                .alerts(&["TrunklineConsumerStalled", "TrunklineConsumerLagGrowing"])
                .may_be_zero("records are read faster than they are looked at"),
            Panel::lines("Wait before a shard, p99", Seconds)
                .note("How long the oldest record of a step waited on the log before its shard took it.")
                .query(
                    "{{direction}}",
                    "histogram_quantile(0.99, sum by (le, direction) (rate(trunkline_router_queue_duration_seconds_bucket[R])))",
                ),
            Panel::lines("Work on a record, p99", Seconds).note("In router code, without any queue.").query(
                "{{direction}}",
                "histogram_quantile(0.99, sum by (le, direction) (rate(trunkline_router_process_duration_seconds_bucket[R])))",
            ),
            Panel::lines("Records by outcome", PerSecond)
                .note("What the routers finished.")
                .query("{{direction}} {{outcome}}", "sum by (direction, outcome) (rate(trunkline_router_records_total[R]))"),
            Panel::lines("Shard busy ratio, largest and median", Share)
                .note("A gap between the two shows skew.")
                .query("{{instance}} largest", "max by (instance) (trunkline_router_shard_busy_ratio)")
                .query("{{instance}} median", "quantile by (instance) (0.5, trunkline_router_shard_busy_ratio > 0)"),
            Panel::lines("Conversations held back", Count)
                .note("Conversations with deferred work: what comes for them waits behind it.")
                .query("conversations", "sum(trunkline_router_conversations_blocked)"),
            Panel::lines("Records left on the log for a moment", PerSecond)
                .note("Because an endpoint had too much waiting: it, or the process, is too slow.")
                .query("{{instance}}", "sum by (instance) (rate(trunkline_router_holds_total[R]))")
                .alerts(&["TrunklineWebhookBacklogOld"])
                .may_be_zero("asks for a crowd that the test does not make"),
            Panel::lines("Shards and partitions", Count)
                .note("Shards by what they do, and the partitions of each process.")
                .query("shards {{state}}", "sum by (state) (trunkline_shards)")
                .query("{{instance}} partitions", "sum by (instance) (trunkline_log_assigned_partitions)")
                .alerts(&["TrunklineShardsDown"]),
            Panel::lines("Rebalances", Count)
                .note("Changes of who owns which partition. Read them beside the roll-outs.")
                .query("{{group}} {{kind}}", "sum by (group, kind) (increase(trunkline_log_rebalances_total[R]))")
                .may_be_zero("only Kafka moves partitions between processes"),
            Panel::lines("Commit latency, p99", Seconds)
                .note("To make finished positions durable.")
                .query("{{group}}", "histogram_quantile(0.99, sum by (le, group) (rate(trunkline_log_commit_duration_seconds_bucket[R])))"),
            Panel::lines("Log errors", PerSecond)
                .note("Operations on the log that failed, and records that it did not take.")
                .query("{{operation}} {{error_type}}", "sum by (operation, error_type) (rate(trunkline_log_errors_total[R]))")
                .query("not appended: {{topic}}", r#"sum by (topic) (rate(trunkline_log_produced_records_total{outcome="failed"}[R]))"#)
                .may_be_zero("a log that is well fails nothing"),
        ],
    }
}

pub(super) fn process() -> Board {
    Board {
        name: "process",
        title: "Trunkline: store, limits and process",
        description: "What the node works on and with: store, budgets, memory, disk, versions.",
        height: 8,
        panels: vec![
            Panel::lines("Store requests by outcome", PerSecond)
                .note("A lost race is an answer, and counts as ok.")
                .query("{{operation}} {{outcome}}", "sum by (operation, outcome) (rate(trunkline_store_requests_total[R]))")
                .alerts(&["TrunklineStoreErrors"]),
            Panel::lines("Store latency by operation, p99", Seconds)
                .note("Retries included.")
                .query(
                    "{{operation}}",
                    "histogram_quantile(0.99, sum by (le, operation) (rate(trunkline_store_request_duration_seconds_bucket[R])))",
                ),
            Panel::lines("Store requests in flight, and retries", Count)
                .note("Retries per second, by reason.")
                .query("in flight", "sum(trunkline_store_requests_in_flight)")
                .query("retried: {{reason}}", "sum by (reason) (rate(trunkline_store_retries_total[R]))")
                .may_be_zero("requests end faster than they are looked at, and retries ask for a store that is away"),
            Panel::lines("Flush to disk, p99", Seconds)
                .note("By the embedded log or the spool. Empty where the log is Kafka and no spool is used.")
                .query(
                    "{{instance}}",
                    "histogram_quantile(0.99, sum by (le, instance) (rate(trunkline_store_fsync_duration_seconds_bucket[R])))",
                ),
            Panel::lines("Rate-limit decisions", PerSecond)
                .note("Allowed, delayed, refused, by what the budget is for.")
                .query("{{scope}} {{decision}}", "sum by (scope, decision) (rate(trunkline_ratelimit_decisions_total[R]))"),
            Panel::lines("Limits on local estimates", Count)
                .note("1 while Redis is away: each process then meters its share.")
                .query("{{instance}}", "max by (instance) (trunkline_ratelimit_degraded)")
                .alerts(&["TrunklineRateLimitDegraded"])
                .may_be_zero("asks for a Redis that is away"),
            Panel::lines("Cache hit ratio", Share)
                .note("By cache.")
                .query(
                    "{{cache}}",
                    r#"sum by (cache) (rate(trunkline_cache_requests_total{result="hit"}[R])) / sum by (cache) (rate(trunkline_cache_requests_total[R]))"#,
                ),
            Panel::lines("CPU seconds per 1000 events", Seconds)
                .note("What an event costs: a regression shows here first.")
                .query("cpu", "1000 * sum(rate(process_cpu_seconds_total[R])) / sum(rate(trunkline_ingress_events_total[R]))"),
            Panel::lines("Memory", Bytes).note("Resident.").query("{{instance}}", "sum by (instance) (process_resident_memory_bytes)"),
            Panel::lines("File descriptors used", Share)
                .note("Of those that the process may open.")
                .query("{{instance}}", "max by (instance) (process_open_fds / process_max_fds)")
                .steps("green", &[(0.8, "red")])
                .alerts(&["TrunklineFileDescriptorsHigh"]),
            Panel::lines("Runtime busy ratio", Share)
                .note("Share of worker time spent busy.")
                .query("{{instance}} {{runtime}}", "max by (instance, runtime) (trunkline_runtime_busy_ratio)"),
            Panel::lines("Disk used against budget", Bytes)
                .note("The embedded log and store.")
                .query("{{instance}} {{component}}", "sum by (instance, component) (trunkline_store_disk_usage_bytes)")
                .query("{{instance}} budget", "sum by (instance) (trunkline_store_disk_limit_bytes)")
                .alerts(&["TrunklineDiskFilling"]),
            Panel::lines("Versions running", Count)
                .note("How far a roll-out is.")
                .query("{{version}} {{revision}}", "count by (version, revision) (trunkline_build_info)"),
            Panel::lines("Log lines by level", PerSecond)
                .note("Errors want a look.")
                .query("{{level}}", "sum by (level) (rate(trunkline_log_lines_total[R]))"),
            Panel::new("Must be 0", Stat, Count)
                .note("Records without an outcome, panics, tasks that were begun again.")
                .query("lost records", "sum(trunkline_lost_records_total)")
                .query("panics", "sum(trunkline_panics_total)")
                .query("restarts: {{task}}", "sum by (task) (trunkline_task_restarts_total)")
                .steps("green", &[(1.0, "red")])
                .alerts(&["TrunklinePanics", "TrunklineTasksRestarted"])
                .may_be_zero("the title says it"),
        ],
    }
}
