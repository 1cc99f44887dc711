//! Where the deliveries of a load run arrive, and the truth check over them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::record::histogram;
use crate::checker::{self, Answer, Delivery, History, Operation, Taken, Verdict};
use crate::inbox::{Inbox, InboxOptions, Observer, Received};
use crate::locked;
use crate::mark::Mark;
use crate::platform::Call;

/// Deliveries kept; a run has fewer, and what comes above makes the check fail as lost.
const DELIVERIES_MAX: usize = 5_000_000;

/// A subscriber that keeps of each request only what the checker needs.
pub struct Sink {
    inbox: Inbox,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    name: Arc<str>,
}

impl Sink {
    /// Starts it. Errors: the address cannot be bound.
    pub async fn start(name: &str) -> io::Result<Self> {
        let name: Arc<str> = Arc::from(name);
        let deliveries: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let observer: Observer = {
            let (name, deliveries) = (name.clone(), deliveries.clone());
            Arc::new(move |received: &Received| {
                let delivery = Delivery::from_received(&name, received);
                let mut all = locked(&deliveries);
                if all.len() < DELIVERIES_MAX {
                    all.push(delivery);
                }
            })
        };
        let inbox = Inbox::observed(InboxOptions { keep_max: 0, ..InboxOptions::default() }, Some(observer)).await?;
        Ok(Self { inbox, deliveries, name })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.inbox.url()
    }

    /// Its name in the checker's words.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The inbox behind it, to choose its answers.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Returns true once so many requests have come, false when `within` passes first.
    pub async fn wait_count(&self, count: u64, within: Duration) -> bool {
        self.inbox.wait_count(count, within).await
    }

    /// What came, in order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        locked(&self.deliveries).clone()
    }
}

/// The truth check of an ingress run: what was offered against what one endpoint, which wants everything, received.
pub fn check(offered: &[Operation], deliveries: &[Delivery]) -> Verdict {
    let endpoint = deliveries.first().map_or_else(|| Arc::from("sink"), |delivery| delivery.endpoint.clone());
    checker::check(&History {
        offered: offered.to_vec(),
        deliveries: deliveries.to_vec(),
        endpoints: vec![endpoint],
        complete: true,
        ..History::default()
    })
}

/// The truth check of a send run: what was asked for against what the platform took.
pub fn check_sends(sends: &[Operation], calls: &[Call]) -> Verdict {
    let taken = calls.iter().filter_map(Taken::from_call).collect();
    checker::check(&History { sends: sends.to_vec(), taken, ..History::default() })
}

/// How long from acceptance to each first delivery, in microseconds.
pub fn accept_to_subscriber(offered: &[Operation], deliveries: &[Delivery]) -> Histogram<u64> {
    until(offered, deliveries.iter().filter_map(|delivery| Some((delivery.mark?, delivery.at_us))))
}

/// How long from acceptance to the platform, in microseconds.
pub fn accept_to_platform(sends: &[Operation], calls: &[Call]) -> Histogram<u64> {
    until(sends, calls.iter().filter_map(|call| Some((Mark::find(call.text.as_deref()?.as_bytes())?, call.at_us))))
}

fn until(operations: &[Operation], arrivals: impl Iterator<Item = (Mark, u64)>) -> Histogram<u64> {
    let accepted = operations.iter().filter(|operation| operation.answer == Answer::Accepted);
    let mut waiting: HashMap<Mark, u64> = accepted.map(|operation| (operation.mark, operation.answered_us)).collect();
    let mut times = histogram();
    for (mark, at_us) in arrivals {
        if let Some(accepted_us) = waiting.remove(&mark) {
            times.saturating_record(at_us.saturating_sub(accepted_us).max(1));
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Client;
    use crate::load::{OpenPlan, Prepared, open_loop, prepared::IngressLoad};

    /// What becomes of a message on its way from the stub gateway to the sink.
    type Twist = fn(Mark) -> Vec<u32>;

    /// A gateway that accepts webhooks and delivers each as often as `twist` says, with these attempt numbers.
    async fn run(twist: Twist) -> (Verdict, u64) {
        let sink = Sink::start("crm").await.unwrap();
        let url = sink.url();
        let client = Arc::new(Client::new(Duration::from_secs(5)));
        let handler = move |mut request: crate::http::Request| {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let body = request.body().await.unwrap();
                let mark = Mark::find(&body).unwrap();
                for attempt in twist(mark) {
                    let (event, conversation) = (format!("evt_{mark}"), format!("cnv_{}", mark.conversation));
                    let (attempt, sequence) = (attempt.to_string(), mark.sequence.to_string());
                    let headers = [
                        ("webhook-id", event.as_str()),
                        ("trunkline-attempt", &attempt),
                        ("trunkline-conversation", &conversation),
                        ("trunkline-sequence", &sequence),
                    ];
                    let event = format!(r#"{{"type":"message.received","data":{{"text":{{"body":"{mark}"}}}}}}"#);
                    client.post(&url, &headers, event).await.unwrap();
                }
                crate::http::reply(200, "text/plain", "")
            }
        };
        let gateway = crate::http::Server::start("127.0.0.1:0".parse().unwrap(), handler).await.unwrap();
        let (app_secret, phone_number_id) = ("s".to_owned(), "42".to_owned());
        let load = IngressLoad { url: gateway.url(), app_secret, phone_number_id, run: 1, requests: 60, conversations: 6, body_bytes: 700 };
        let load = Prepared::ingress(&load).unwrap();
        let run = open_loop(&load, OpenPlan { connections: 6, ..OpenPlan::at(2_000.0) }).await.unwrap();
        let deliveries = sink.deliveries();
        let verdict = check(&run.operations, &deliveries);
        (verdict, accept_to_subscriber(&run.operations, &deliveries).len())
    }

    #[tokio::test]
    async fn the_truth_check_sees_a_whole_run() {
        let (clean, arrived) = run(|_| vec![1]).await;
        assert!(clean.is_clean(), "{clean}");
        assert_eq!((clean.accepted, clean.delivered, arrived), (60, 60, 60));
        let (lost, arrived) = run(|mark| if mark.conversation == 3 && mark.sequence == 5 { vec![] } else { vec![1] }).await;
        assert_eq!((lost.kinds(), arrived), (vec![checker::Kind::Lost], 59));
        let (twice, _) = run(|mark| if mark.conversation == 3 && mark.sequence == 5 { vec![1, 1] } else { vec![1] }).await;
        assert_eq!(twice.kinds(), [checker::Kind::Duplicated]);
        let (marked, _) = run(|mark| if mark.conversation == 3 && mark.sequence == 5 { vec![1, 2] } else { vec![1] }).await;
        assert_eq!((marked.is_clean(), marked.marked_duplicates), (true, 1));
    }
}
