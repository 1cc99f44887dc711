//! The page for whoever is on call, and what comes in.

use super::Kind::{Heatmap, Logarithmic, Stat, Table, Timeline};
use super::Unit::{Count, PerSecond, Seconds, Share};
use super::{Board, Panel};

pub(super) fn overview() -> Board {
    Board {
        name: "overview",
        title: "Trunkline: overview",
        description: "For whoever is on call. From top to bottom: does the budget burn, are we late, is it us, a platform or a subscriber.",
        height: 6,
        panels: vec![
            Panel::new("Error budget left, 30 days", Stat, Share)
                .note("What is left of the errors that each objective allows in 30 days.")
                .query("{{slo}}", "1 - (avg_over_time(slo:sli_error:ratio_rate5m[30d]) / on(slo) group_left() (1 - slo:objective:ratio))")
                .steps("red", &[(0.1, "orange"), (0.5, "green")])
                .alerts(&[
                    "TrunklineIngressAvailabilityBurnSlow",
                    "TrunklineIngressLatencyBurnSlow",
                    "TrunklineWebhookFreshnessBurnSlow",
                    "TrunklineSendTimelinessBurnSlow",
                ]),
            Panel::lines("Burn rate, 1 h", Count)
                .note("How many times faster than allowed the budget is used. 1 uses it up in 30 days, 14.4 uses up 2 % of it in an hour.")
                .query("{{slo}}", "slo:sli_error:ratio_rate1h / on(slo) group_left() (1 - slo:objective:ratio)")
                .steps("green", &[(1.0, "yellow"), (6.0, "orange"), (14.4, "red")])
                .alerts(&[
                    "TrunklineIngressAvailabilityBurnFast",
                    "TrunklineIngressLatencyBurnFast",
                    "TrunklineWebhookFreshnessBurnFast",
                    "TrunklineSendTimelinessBurnFast",
                ]),
            Panel::new("What is wrong now", Table, Count)
                .note("Alerts that fire. The board with the runbooks says what each means and what to do.")
                .query("", r#"ALERTS{alertstate="firing", job=~"$job|"}"#),
            Panel::lines("Events in and out", PerSecond)
                .note("Above the axis what came in, below it what went out: deliveries that subscribers took, calls that platforms took.")
                .query("in: {{kind}}", "sum by (kind) (rate(trunkline_ingress_events_total[R]))")
                .query("out: delivered", r#"- sum(rate(trunkline_webhook_attempts_total{outcome="success"}[R]))"#)
                .query("out: sent", r#"- sum(rate(trunkline_platform_requests_total{operation="send", outcome="ok"}[R]))"#),
            Panel::new("How late are we", Logarithmic, Seconds)
                .note("Age of the oldest record that is not worked on yet. 0 when the routers keep up.")
                .query("{{topic}} {{group}}", "max by (topic, group) (trunkline_log_consumer_lag_seconds)")
                .alerts(&["TrunklineConsumerStalled", "TrunklineConsumerLagGrowing"])
                .may_be_zero("records are read faster than they are looked at"),
            Panel::lines("Acknowledgement latency", Seconds)
                .note("From the request's head to the success reply, which comes after the event is durable. The lines are Meta's limits.")
                .query("p50", "histogram_quantile(0.5, sum by (le) (rate(trunkline_ingress_ack_duration_seconds_bucket[R])))")
                .query("p99", "histogram_quantile(0.99, sum by (le) (rate(trunkline_ingress_ack_duration_seconds_bucket[R])))")
                .query("p99.9", "histogram_quantile(0.999, sum by (le) (rate(trunkline_ingress_ack_duration_seconds_bucket[R])))")
                .steps("green", &[(0.25, "orange"), (1.0, "red")])
                .alerts(&["TrunklineAckSlow"]),
            Panel::lines("End to end", Seconds)
                .note("From durable acceptance to the first success at the far side.")
                .query(
                    "{{direction}} p50",
                    "histogram_quantile(0.5, sum by (le, direction) (rate(trunkline_end_to_end_duration_seconds_bucket[R])))",
                )
                .query(
                    "{{direction}} p99",
                    "histogram_quantile(0.99, sum by (le, direction) (rate(trunkline_end_to_end_duration_seconds_bucket[R])))",
                )
                .width(12),
            Panel::new("Component readiness", Timeline, Count)
                .note("Of the components that were ready within the last day: a gateway has no router, and its 0 says nothing.")
                .query(
                    "{{instance}} {{component}}",
                    "min by (instance, component) (trunkline_component_ready and max_over_time(trunkline_component_ready[1d]) > 0)",
                )
                .steps("red", &[(1.0, "green")])
                .alerts(&["TrunklineTargetDown", "TrunklineAbsent"])
                .width(12),
        ],
    }
}

pub(super) fn ingress() -> Board {
    Board {
        name: "ingress",
        title: "Trunkline: ingress and API",
        description: "What platforms and merchants ask of the gateways, and what they get.",
        height: 8,
        panels: vec![
            Panel::lines("Requests by code", PerSecond)
                .note("Rate and errors of each listener.")
                .query("{{listener}} {{code}}", "sum by (listener, code) (rate(trunkline_http_requests_total[R]))")
                .alerts(&["TrunklineHooksFailing", "TrunklineIngressAvailabilityBurnFast"]),
            Panel::new("Acknowledgement latency", Heatmap, Seconds)
                .note("The whole distribution.")
                .query("{{le}}", "sum by (le) (increase(trunkline_ingress_ack_duration_seconds_bucket[R]))")
                .alerts(&["TrunklineAckSlow"]),
            Panel::lines("Request duration by route, p99", Seconds).note("From the request's head to the last byte of the answer.").query(
                "{{route}}",
                "histogram_quantile(0.99, sum by (le, route) (rate(trunkline_http_request_duration_seconds_bucket[R])))",
            ),
            Panel::lines("Rejections by reason", PerSecond)
                .note("Bad signature, malformed, unknown account, rate limited, log away.")
                .query("{{channel}} {{reason}}", "sum by (channel, reason) (rate(trunkline_ingress_rejections_total[R]))")
                .alerts(&["TrunklineAccountsUnverified"]),
            Panel::lines("Shed requests", PerSecond)
                .note("Refused to protect the process. 0 outside of overload tests.")
                .query("{{listener}} {{reason}}", "sum by (listener, reason) (rate(trunkline_http_shed_total[R]))")
                .alerts(&["TrunklineShedding"]),
            Panel::lines("Wait for a turn p99", Seconds)
                .note("How long work that is ready waits on a serving thread. Above 40 ms for long, requests are refused (reason delay).")
                .query(
                    "{{listener}}",
                    "histogram_quantile(0.99, sum by (le, listener) (rate(trunkline_http_turn_delay_seconds_bucket[R])))",
                ),
            Panel::lines("Refused by quotas", PerSecond)
                .note("By which quota of a tenant.")
                .query("{{quota}}", "sum by (quota) (rate(trunkline_quota_refusals_total[R]))")
                .may_be_zero("asks for a tenant that uses up a quota"),
            Panel::lines("Duplicates and idempotent replays", PerSecond)
                .note("What idempotency keys met at the API, and what the router had seen before.")
                .query("key: {{outcome}}", "sum by (outcome) (rate(trunkline_idempotency_requests_total[R]))")
                .query("seen before: {{scope}}", "sum by (scope) (rate(trunkline_router_duplicates_total[R]))"),
            Panel::lines("Connections and requests in flight", Count)
                .note("Saturation of each listener.")
                .query("{{listener}} in flight", "sum by (listener) (trunkline_http_requests_in_flight)")
                .query("{{listener}} connections", "sum by (listener) (trunkline_http_connections)"),
        ],
    }
}
