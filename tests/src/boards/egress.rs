//! What goes out: to platforms and to subscribers.

use super::Kind::{Bars, Stat};
use super::Unit::{Bytes, Count, Days, PerSecond, Seconds, Share};
use super::{Board, Panel};

pub(super) fn platforms() -> Board {
    Board {
        name: "platforms",
        title: "Trunkline: platforms",
        description: "Sends and accounts. Is it the platform, our rate limits, or the account?",
        height: 8,
        panels: vec![
            Panel::lines("Calls by outcome", PerSecond)
                .note("How calls to platforms ended.")
                .query("{{channel}} {{outcome}}", "sum by (channel, outcome) (rate(trunkline_platform_requests_total[R]))")
                .alerts(&["TrunklinePlatformAuthFailing"]),
            Panel::lines("Call latency, p99", Seconds).note("Theirs, not ours.").query(
                "{{channel}} {{operation}}",
                "histogram_quantile(0.99, sum by (le, channel, operation) (rate(trunkline_platform_request_duration_seconds_bucket[R])))",
            ),
            Panel::lines("Wait for the first call, p99", Seconds)
                .note("Ours: the queue and the rate limits before a message's first call.")
                .query(
                    "{{channel}}",
                    "histogram_quantile(0.99, sum by (le, channel) (rate(trunkline_platform_throttle_wait_seconds_bucket[R])))",
                )
                .alerts(&["TrunklineSendTimelinessBurnFast"]),
            Panel::lines("Oldest waiting message", Seconds)
                .note("Its age. Empty when none waits.")
                .query("{{channel}}", "time() - min by (channel) (trunkline_platform_oldest_pending_timestamp_seconds > 0)")
                .alerts(&["TrunklineOutboundBacklogOld"]),
            Panel::lines("Waiting messages by state", Count)
                .note("Queued for their turn, scheduled, or on their way.")
                .query("{{channel}} {{state}}", "sum by (channel, state) (trunkline_platform_pending_messages)"),
            Panel::lines("Statuses reported", PerSecond)
                .note("What platforms say became of messages.")
                .query("{{channel}} {{status}}", "sum by (channel, status) (rate(trunkline_message_status_total[R]))"),
            Panel::lines("Refused before the call", PerSecond)
                .note("Window closed, opted out, no template and so on.")
                .query("{{channel}} {{reason}}", "sum by (channel, reason) (rate(trunkline_sends_refused_total[R]))"),
            Panel::lines("Reply windows", PerSecond)
                .note("Windows that opened, were renewed, ran out or were closed by the platform.")
                .query("{{channel}} {{transition}}", "sum by (channel, transition) (rate(trunkline_window_transitions_total[R]))"),
            Panel::new("Days until the first credential ends", Stat, Days)
                .note("Of the credentials whose end is known. Refreshes move it.")
                .query("{{channel}}", "(min by (channel) (trunkline_platform_credential_expiry_timestamp_seconds > 0) - time()) / 86400")
                .steps("red", &[(7.0, "orange"), (14.0, "green")])
                .alerts(&["TrunklineCredentialExpiring"]),
            Panel::new("Accounts by state", Bars, Count)
                .note("Every gateway shows the whole directory: the largest count is the true one.")
                .query("{{channel}} {{state}}", "max by (channel, state) (trunkline_platform_accounts) > 0")
                .alerts(&["TrunklineAccountsBroken", "TrunklineAccountsUnverified"]),
            Panel::lines("Circuits of accounts", PerSecond)
                .note("A circuit opens when an account's platform is down, and closes when it is back.")
                .query("{{channel}} {{to}}", "sum by (channel, to) (rate(trunkline_platform_circuit_transitions_total[R]))"),
            Panel::lines("Works of accounts", Count)
                .note("Connections, pulls and refreshes that go on now.")
                .query("{{work}}", "sum by (work) (trunkline_account_works)"),
            Panel::lines("Works of accounts that ended", PerSecond)
                .note("By reason: stuck ones wait for somebody who changes the account.")
                .query("{{work}} {{reason}}", "sum by (work, reason) (rate(trunkline_account_work_ends_total[R]))"),
            Panel::lines("Media moved", Bytes)
                .note("Bytes per second.")
                .query("{{channel}} {{direction}}", "sum by (channel, direction) (rate(trunkline_media_bytes_total[R]))"),
            Panel::lines("Media that were not had", PerSecond)
                .note("By the rule that they broke, or what happened.")
                .query("{{reason}}", "sum by (reason) (rate(trunkline_media_failures_total[R]))"),
            Panel::lines("Media kept", Bytes)
                .note("As of the last sweep.")
                .query("{{instance}}", "sum by (instance) (trunkline_media_stored_bytes)"),
        ],
    }
}

pub(super) fn webhooks() -> Board {
    Board {
        name: "webhooks",
        title: "Trunkline: webhook delivery",
        description: "Deliveries to subscribers. Is it one endpoint, many, or us?",
        height: 8,
        panels: vec![
            Panel::lines("Attempts by outcome", PerSecond)
                .note("How attempts ended. Failures of name resolution count as connect.")
                .query("{{outcome}}", "sum by (outcome) (rate(trunkline_webhook_attempts_total[R]))")
                .alerts(&["TrunklineWebhookEndpointsFailing"]),
            Panel::lines("First-attempt delay", Seconds)
                .note("From durable acceptance to the first attempt: what we promise to subscribers. The line is the objective's.")
                .query("p50", "histogram_quantile(0.5, sum by (le) (rate(trunkline_webhook_first_attempt_delay_seconds_bucket[R])))")
                .query("p99", "histogram_quantile(0.99, sum by (le) (rate(trunkline_webhook_first_attempt_delay_seconds_bucket[R])))")
                .steps("green", &[(5.0, "red")])
                .alerts(&["TrunklineWebhookFreshnessBurnFast"]),
            Panel::lines("Delivery age, p99", Seconds)
                .note("From durable acceptance to success, retries and outages of subscribers included.")
                .query("p99", "histogram_quantile(0.99, sum by (le) (rate(trunkline_webhook_delivery_age_seconds_bucket[R])))"),
            Panel::lines("Attempt duration by outcome, p99", Seconds).note("How long subscribers take.").query(
                "{{outcome}}",
                "histogram_quantile(0.99, sum by (le, outcome) (rate(trunkline_webhook_attempt_duration_seconds_bucket[R])))",
            ),
            Panel::lines("Pending by state", Count)
                .note("Queued, in flight, waiting for the next try, paused. Of a long deferred queue only the part in memory.")
                .query("{{state}}", "sum by (state) (trunkline_webhook_pending_deliveries)"),
            Panel::lines("Oldest pending delivery", Seconds)
                .note("Its age. Empty when none is pending.")
                .query("{{instance}}", "time() - min by (instance) (trunkline_webhook_oldest_pending_timestamp_seconds > 0)")
                .alerts(&["TrunklineWebhookBacklogOld"]),
            Panel::lines("Deliveries that ended", PerSecond)
                .note("Delivered, given up, dropped with their endpoint, or withheld.")
                .query("{{outcome}}", "sum by (outcome) (rate(trunkline_webhook_deliveries_total[R]))"),
            Panel::new("Endpoints by state", Bars, Count)
                .note("Paused by the tenant; disabled after a 410 or a long failure. Every process shows the whole directory: the largest count is the true one.")
                .query("{{state}}", "max by (state) (trunkline_webhook_endpoints)")
                .alerts(&["TrunklineWebhookEndpointsFailing"]),
            Panel::lines("Changes of endpoints' states", PerSecond)
                .note("By the new state.")
                .query("{{to}}", "sum by (to) (rate(trunkline_webhook_endpoint_transitions_total[R]))"),
            Panel::lines("Connection reuse", Share)
                .note("A low share under load means that the pool is too small.")
                .query(
                    "reused",
                    r#"sum(rate(trunkline_webhook_connections_total{reused="true"}[R])) / sum(rate(trunkline_webhook_connections_total[R]))"#,
                ),
            Panel::lines("Dead letters", Count)
                .note(
                    "Parked for a person to look at: `trunkline dlq list` says why, `trunkline dlq requeue --all` lets them in again once the \
                     cause is mended.",
                )
                .query("{{queue}} {{reason}}", "sum by (queue, reason) (increase(trunkline_dead_letters_total[R]))")
                .alerts(&["TrunklineDeadLettersGrowing"]),
        ],
    }
}
