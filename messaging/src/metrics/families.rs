//! The table of families. It is operations.md section 3, without what this build cannot have: traces, per-tenant copies,
//! a shared budget backend, and poll overruns (which need an unstable build of the runtime). A family that nothing sets does not
//! stand here: `tests/it/observe.rs` asks that every one of them moves.

use metrics::{Counter, Gauge, Histogram};

use super::labels::*;
use super::{Describe, Family, Label};
use crate::channels::{ChannelKind, MediaFault, PieceKind};
use crate::limit::BudgetScope;
use crate::log::Topic;
use crate::outcome::Outcome;
use crate::quota::Quota;

/// Bucket bounds in seconds: general requests.
const HTTP: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// In seconds: durable acknowledgements. Holds 0.25 and 1 (the platforms' rule) and resolves less than a millisecond.
const ACK: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// In seconds: store, commit, flush, shard work.
const IO: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
/// In seconds: remote calls, up to their time-outs.
const NET: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];
/// In seconds: queueing and retries, milliseconds to two hours.
const E2E: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];
/// In bytes.
const SIZE: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
/// In events.
const BATCH: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0];
/// Of families that are no histograms.
const NONE: &[f64] = &[];

/// Stands in the table for the partition and shard numbers.
struct Partition;
impl Partition {
    const NAMES: &'static [&'static str] = PARTITION_NAMES;
}

/// Name and help of the build facts: their label values are known at start only, so no family of the table can hold them.
pub(super) const BUILD_INFO_NAME: &str = "trunkline_build_info";
pub(super) const BUILD_INFO_HELP: &str = "Build and run-mode facts of this process; the value is always 1.";

macro_rules! buckets {
    () => {
        NONE
    };
    ($set:ident) => {
        $set
    };
}

macro_rules! families {
    ($($constant:ident: $handle:ident $($set:ident)? = $name:literal [$($label:literal: $values:ident),*] $help:literal,)*) => {
        $(
            #[doc = $help]
            #[doc = concat!("\n\n`", $name, "`")]
            pub static $constant: Family<$handle, { <[&str]>::len(&[$($label),*]) }> =
                Family::new($name, $help, [$(Label { name: $label, values: $values::NAMES }),*], buckets!($($set)?));
        )*

        /// Every family, in the order of the reference page.
        pub const FAMILIES: &[&dyn Describe] = &[$(&$constant),*];
    };
}

families! {
    // Promises (promises.md): not in operations.md's table
    LOST_RECORDS: Counter = "trunkline_lost_records_total" []
        "Records dropped without an outcome; always 0 in a healthy system.",

    // Process and build
    COMPONENT_READY: Gauge = "trunkline_component_ready" ["component": Component]
        "Whether a component reports ready (1) or not (0).",
    DRAINING: Gauge = "trunkline_draining" []
        "Whether the process is draining and refuses new work (1) or serves (0).",
    CONFIG_LAST_RELOAD_SUCCESSFUL: Gauge = "trunkline_config_last_reload_successful" []
        "Whether the last configuration load succeeded (1) or failed (0).",
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS: Gauge = "trunkline_config_last_reload_success_timestamp_seconds" []
        "Unix time of the last successful configuration load.",
    LOG_LINES: Counter = "trunkline_log_lines_total" ["level": LogLevel]
        "Log lines written, by level.",
    PANICS: Counter = "trunkline_panics_total" []
        "Panics, each counted once; 0 in a healthy system.",
    TASK_RESTARTS: Counter = "trunkline_task_restarts_total" ["task": SupervisedTask]
        "Tasks that must live and were begun again after a panic.",

    // Async runtime (USE)
    RUNTIME_BUSY_RATIO: Gauge = "trunkline_runtime_busy_ratio" ["runtime": Runtime]
        "Share of worker time spent busy since the previous sample.",
    RUNTIME_TASKS_ALIVE: Gauge = "trunkline_runtime_tasks_alive" ["runtime": Runtime]
        "Tasks alive on the runtime.",
    RUNTIME_QUEUE_TASKS: Gauge = "trunkline_runtime_queue_tasks" ["runtime": Runtime]
        "Tasks waiting in the runtime global queue.",

    // HTTP edge (RED), all listeners
    HTTP_REQUESTS: Counter = "trunkline_http_requests_total" ["listener": Listener, "route": Route, "code": CodeClass]
        "HTTP requests finished, by matched route template and status code.",
    HTTP_REQUEST_DURATION_SECONDS: Histogram HTTP = "trunkline_http_request_duration_seconds" ["listener": Listener, "route": Route]
        "Time from request head to last response byte.",
    HTTP_REQUESTS_IN_FLIGHT: Gauge = "trunkline_http_requests_in_flight" ["listener": Listener]
        "HTTP requests being served now.",
    HTTP_CONNECTIONS: Gauge = "trunkline_http_connections" ["listener": Listener]
        "Open client connections.",
    HTTP_REQUEST_SIZE_BYTES: Histogram SIZE = "trunkline_http_request_size_bytes" ["listener": Listener]
        "Size of request bodies after decompression.",
    HTTP_SHED: Counter = "trunkline_http_shed_total" ["listener": Listener, "reason": ShedReason]
        "Requests refused to protect the process, by reason.",
    HTTP_TURN_DELAY_SECONDS: Histogram HTTP = "trunkline_http_turn_delay_seconds" ["listener": Listener]
        "How long work that is ready waits for its turn on a serving thread, looked at 40 times a second.",

    // Ingress: platform events and send requests
    INGRESS_EVENTS: Counter = "trunkline_ingress_events_total" ["channel": ChannelKind, "kind": PieceKind, "outcome": IngressOutcome]
        "Events taken from platforms and merchants, by what became of them.",
    INGRESS_REJECTIONS: Counter = "trunkline_ingress_rejections_total" ["channel": ChannelKind, "reason": IngressRejection]
        "Ingress requests refused, by reason.",
    INGRESS_ACK_DURATION_SECONDS: Histogram ACK = "trunkline_ingress_ack_duration_seconds" ["channel": ChannelKind]
        "Time from request head to the success reply, which is sent only after the event is durable.",
    INGRESS_EVENTS_PER_REQUEST: Histogram BATCH = "trunkline_ingress_events_per_request" ["channel": ChannelKind]
        "Events carried by one ingress request.",
    IDEMPOTENCY_REQUESTS: Counter = "trunkline_idempotency_requests_total" ["outcome": IdempotencyOutcome]
        "Send requests that carried an idempotency key, by outcome.",

    // Log: Kafka or embedded
    LOG_PRODUCED_RECORDS: Counter = "trunkline_log_produced_records_total" ["topic": Topic, "outcome": ProduceOutcome]
        "Records handed to the log, by acknowledged or failed.",
    LOG_PRODUCED_BYTES: Counter = "trunkline_log_produced_bytes_total" ["topic": Topic]
        "Bytes handed to the log.",
    LOG_PRODUCE_DURATION_SECONDS: Histogram ACK = "trunkline_log_produce_duration_seconds" ["topic": Topic]
        "Time from enqueue to the durable acknowledgement.",
    LOG_PRODUCER_QUEUE_RECORDS: Gauge = "trunkline_log_producer_queue_records" []
        "Records waiting in the local producer queue.",
    LOG_PRODUCER_QUEUE_LIMIT_RECORDS: Gauge = "trunkline_log_producer_queue_limit_records" []
        "Capacity of the local producer queue.",
    LOG_SPOOL_RECORDS: Gauge = "trunkline_log_spool_records" []
        "Records in the local spool that the log does not have yet.",
    LOG_CONSUMED_RECORDS: Counter = "trunkline_log_consumed_records_total" ["topic": Topic, "group": ConsumerGroup]
        "Records taken from the log.",
    LOG_CONSUMER_LAG_RECORDS: Gauge = "trunkline_log_consumer_lag_records" ["topic": Topic, "group": ConsumerGroup, "partition": Partition]
        "Records between the committed position and the end of the partition.",
    LOG_CONSUMER_LAG_SECONDS: Gauge = "trunkline_log_consumer_lag_seconds" ["topic": Topic, "group": ConsumerGroup, "partition": Partition]
        "Age of the oldest record not yet processed; 0 when caught up.",
    LOG_ASSIGNED_PARTITIONS: Gauge = "trunkline_log_assigned_partitions" ["group": ConsumerGroup]
        "Partitions this process owns.",
    LOG_REBALANCES: Counter = "trunkline_log_rebalances_total" ["group": ConsumerGroup, "kind": RebalanceKind]
        "Partition assignment changes.",
    LOG_COMMIT_DURATION_SECONDS: Histogram IO = "trunkline_log_commit_duration_seconds" ["group": ConsumerGroup]
        "Time to commit positions.",
    LOG_ERRORS: Counter = "trunkline_log_errors_total" ["operation": LogOperation, "error_type": LogErrorType]
        "Log operations that failed, by bounded error type.",

    // Router shards
    ROUTER_RECORDS: Counter = "trunkline_router_records_total" ["direction": Direction, "channel": ChannelKind, "outcome": Outcome]
        "Records the router finished, by outcome.",
    ROUTER_PROCESS_DURATION_SECONDS: Histogram IO = "trunkline_router_process_duration_seconds" ["direction": Direction]
        "Time a record spent in router code, queueing left out.",
    ROUTER_QUEUE_DURATION_SECONDS: Histogram E2E = "trunkline_router_queue_duration_seconds" ["direction": Direction]
        "Time the oldest record of a step waited on the log before its shard took it.",
    SHARDS: Gauge = "trunkline_shards" ["state": ShardState]
        "Shards that this process holds, by what they do.",
    ROUTER_SHARD_BUSY_RATIO: Gauge = "trunkline_router_shard_busy_ratio" ["shard": Partition]
        "Share of time a shard spent working since the previous sample.",
    ROUTER_CONVERSATIONS_BLOCKED: Gauge = "trunkline_router_conversations_blocked" []
        "Conversations with deferred work: what comes for them waits behind it, so that an earlier message goes first.",
    ROUTER_HOLDS: Counter = "trunkline_router_holds_total" []
        "Times a shard left inbound records in the log for a moment because an endpoint had too much waiting: it, or this process, is too slow.",
    ROUTER_DUPLICATES: Counter = "trunkline_router_duplicates_total" ["scope": DuplicateScope]
        "Records dropped because they had been seen before.",
    END_TO_END_DURATION_SECONDS: Histogram E2E = "trunkline_end_to_end_duration_seconds" ["direction": Direction, "channel": ChannelKind]
        "Time from durable acceptance to the first success at the far side.",

    // Conversations and policy
    WINDOW_TRANSITIONS: Counter = "trunkline_window_transitions_total" ["channel": ChannelKind, "transition": WindowTransition]
        "Reply windows opened, renewed, expired or closed.",
    SENDS_REFUSED: Counter = "trunkline_sends_refused_total" ["channel": ChannelKind, "reason": SendRefusal]
        "Outbound messages refused before any platform call, by reason.",

    // Platform calls (egress)
    PLATFORM_REQUESTS: Counter = "trunkline_platform_requests_total"
        ["channel": ChannelKind, "operation": PlatformOperation, "outcome": PlatformOutcome]
        "Calls to platform APIs finished, by outcome.",
    PLATFORM_REQUEST_DURATION_SECONDS: Histogram NET = "trunkline_platform_request_duration_seconds" ["channel": ChannelKind, "operation": PlatformOperation]
        "Duration of one platform API call.",
    PLATFORM_THROTTLE_WAIT_SECONDS: Histogram E2E = "trunkline_platform_throttle_wait_seconds" ["channel": ChannelKind]
        "Time from a message's acceptance to its first platform call: its queue and the rate limits. Scheduled messages are left out.",
    PLATFORM_PENDING_MESSAGES: Gauge = "trunkline_platform_pending_messages" ["channel": ChannelKind, "state": PendingState]
        "Outbound messages that this process holds, by state; of a long deferred queue only the part in memory.",
    PLATFORM_OLDEST_PENDING_TIMESTAMP_SECONDS: Gauge = "trunkline_platform_oldest_pending_timestamp_seconds" ["channel": ChannelKind]
        "Acceptance time of the oldest outbound message still waiting; 0 when none waits.",
    PLATFORM_ACCOUNTS: Gauge = "trunkline_platform_accounts" ["channel": ChannelKind, "state": AccountLabel]
        "Connected platform accounts, by state.",
    PLATFORM_CIRCUIT_TRANSITIONS: Counter = "trunkline_platform_circuit_transitions_total" ["channel": ChannelKind, "to": CircuitState]
        "Account circuit breaker transitions.",
    PLATFORM_CREDENTIAL_EXPIRY_TIMESTAMP_SECONDS: Gauge = "trunkline_platform_credential_expiry_timestamp_seconds" ["channel": ChannelKind]
        "Earliest expiry among the credentials in use; 0 when none expires.",
    MESSAGE_STATUS: Counter = "trunkline_message_status_total" ["channel": ChannelKind, "status": ReportedStatus]
        "Delivery statuses reported by platforms.",

    // Accounts' work: not in operations.md's table
    ACCOUNT_WORKS: Gauge = "trunkline_account_works" ["work": AccountWork]
        "Works of accounts (connections, pulls, refreshes) that this process does now.",
    ACCOUNT_WORK_ENDS: Counter = "trunkline_account_work_ends_total" ["work": AccountWork, "reason": WorkEnd]
        "Works of accounts that ended, by reason.",

    // Media
    MEDIA_BYTES: Counter = "trunkline_media_bytes_total" ["channel": ChannelKind, "direction": Direction]
        "Media bytes moved.",
    MEDIA_FAILURES: Counter = "trunkline_media_failures_total" ["reason": MediaFault]
        "Media that were not had, by the rule that they broke or what happened.",
    MEDIA_STORED_BYTES: Gauge = "trunkline_media_stored_bytes" []
        "Bytes of media that are kept, sealed, as of the last sweep.",

    // Webhook delivery to CRMs
    WEBHOOK_ATTEMPTS: Counter = "trunkline_webhook_attempts_total" ["outcome": AttemptOutcome]
        "Webhook delivery attempts finished, by outcome.",
    WEBHOOK_ATTEMPT_DURATION_SECONDS: Histogram NET = "trunkline_webhook_attempt_duration_seconds" ["outcome": AttemptOutcome]
        "Duration of one webhook attempt.",
    WEBHOOK_DELIVERIES: Counter = "trunkline_webhook_deliveries_total" ["outcome": DeliveryOutcome]
        "Deliveries that reached a final state.",
    WEBHOOK_FIRST_ATTEMPT_DELAY_SECONDS: Histogram E2E = "trunkline_webhook_first_attempt_delay_seconds" []
        "Time from durable acceptance of an event to the start of its first attempt.",
    WEBHOOK_DELIVERY_AGE_SECONDS: Histogram E2E = "trunkline_webhook_delivery_age_seconds" []
        "Time from durable acceptance of an event to its successful delivery, retries included.",
    WEBHOOK_PENDING_DELIVERIES: Gauge = "trunkline_webhook_pending_deliveries" ["state": DeliveryState]
        "Deliveries that this process holds, by state; of a long deferred queue only the part in memory.",
    WEBHOOK_OLDEST_PENDING_TIMESTAMP_SECONDS: Gauge = "trunkline_webhook_oldest_pending_timestamp_seconds" []
        "Acceptance time of the oldest delivery not yet final; 0 when none is pending.",
    WEBHOOK_ENDPOINTS: Gauge = "trunkline_webhook_endpoints" ["state": EndpointHealth]
        "Configured endpoints, by state.",
    WEBHOOK_ENDPOINT_TRANSITIONS: Counter = "trunkline_webhook_endpoint_transitions_total" ["to": EndpointHealth]
        "Endpoint state changes, such as disabled after long failure.",
    WEBHOOK_CONNECTIONS: Counter = "trunkline_webhook_connections_total" ["reused": Reused]
        "Connections used for attempts, by reused or newly opened.",
    WEBHOOK_RESPONSE_SIZE_BYTES: Histogram SIZE = "trunkline_webhook_response_size_bytes" []
        "Size of receiver replies read before the cap.",
    DEAD_LETTERS_TOTAL: Counter = "trunkline_dead_letters_total" ["queue": DeadLetterQueue, "reason": DeadLetterReason]
        "Items ever parked in a dead-letter queue.",

    // Limits, store and cache
    RATELIMIT_DECISIONS: Counter = "trunkline_ratelimit_decisions_total" ["scope": BudgetScope, "decision": LimitDecision]
        "Rate-limit decisions; delayed and refused are counted apart.",
    QUOTA_REFUSALS: Counter = "trunkline_quota_refusals_total" ["quota": Quota]
        "API requests, and messages of batches, that were refused because a quota of their tenant is used up.",
    RATELIMIT_DEGRADED: Gauge = "trunkline_ratelimit_degraded" []
        "Whether limits run on local estimates because the shared backend is away (1) or not (0).",
    STORE_REQUESTS: Counter = "trunkline_store_requests_total" ["operation": StoreOperation, "outcome": StoreOutcome]
        "Store requests finished, by outcome.",
    STORE_REQUEST_DURATION_SECONDS: Histogram IO = "trunkline_store_request_duration_seconds" ["operation": StoreOperation]
        "Duration of one store request, retries included.",
    STORE_REQUESTS_IN_FLIGHT: Gauge = "trunkline_store_requests_in_flight" []
        "Store requests in progress.",
    STORE_RETRIES: Counter = "trunkline_store_retries_total" ["reason": StoreRetryReason]
        "Store requests tried again.",
    STORE_DISK_USAGE_BYTES: Gauge = "trunkline_store_disk_usage_bytes" ["component": DiskComponent]
        "Bytes on disk used by the embedded log and store.",
    STORE_DISK_LIMIT_BYTES: Gauge = "trunkline_store_disk_limit_bytes" []
        "Disk budget of the embedded log and store.",
    STORE_EXPIRED_ROWS: Counter = "trunkline_store_expired_rows_total" []
        "Rows past their retention that the embedded store took off its disk.",
    STORE_FSYNC_DURATION_SECONDS: Histogram IO = "trunkline_store_fsync_duration_seconds" []
        "Duration of one flush to disk by the embedded log or spool.",
    CACHE_REQUESTS: Counter = "trunkline_cache_requests_total" ["cache": CacheName, "result": CacheResult]
        "Cache look-ups, by hit or miss.",
    CACHE_ENTRIES: Gauge = "trunkline_cache_entries" ["cache": CacheName]
        "Entries held in a cache.",
}
