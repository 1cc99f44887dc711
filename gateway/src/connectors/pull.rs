//! Asking a WooCommerce shop for what it told nobody, as an account's work. The shop tells an event once and disables its webhook after
//! a few refusals; what to ask and what the answers mean stands in `messaging::channels::woocommerce::pull`.
//!
//! A pull begins an hour before the last one began, so that what was told late or changed meanwhile is seen; what is known already makes
//! no second event. Its beginning is kept when everything that it found is durable. One call of a shop is under way at a time, so that
//! with a send beside it there are two.

use std::sync::Arc;
use std::time::Duration;

use messaging::BoxFuture;
use messaging::channels::woocommerce::pull::{self, ANSWER_BYTES_MAX, Failure, Pull};
use messaging::channels::{ChannelKind, ChannelSettings, InboundBody, Piece, channel};
use messaging::clock::Timestamp;
use messaging::directory::{Account, AccountState};
use messaging::event::EventType;
use messaging::log::AppendError;
use messaging::record::News;
use messaging::store::{Key, Work};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use super::inlet::Inlet;
use super::job::{Job, Note, Over, Worker};
use super::refused::Refused;
use super::slot::jittered;
use crate::options::Parts;

/// What findings of a pull are called.
const SUBJECT: &str = "pull";
/// How far back of the last pull's beginning one begins: shops tell minutes late.
const OVERLAP: Duration = Duration::from_secs(3600);
/// An order that no webhook told so long after its making is told by none.
const UNTOLD_AFTER: Duration = Duration::from_secs(600);
/// Subscribers are told of untold orders once in so long.
const UNTOLD_EVERY: Duration = Duration::from_secs(24 * 3600);
/// After a webhook was refused: how long until its shop is asked. What made us refuse may have passed by then.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);
/// Answers that the process holds at once: each may have [`ANSWER_BYTES_MAX`].
const ANSWERS_MAX: usize = 4;
/// Pauses while the shop or the log is away: doubled from the first to the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_LONGEST: Duration = Duration::from_secs(15 * 60);

/// What is kept of a pull.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    /// When it began.
    began: Timestamp,
}

/// Pulls shops.
pub(super) struct Puller {
    parts: Parts,
    settings: ChannelSettings,
    refused: Arc<Refused>,
    answers: Semaphore,
}

impl Puller {
    pub(super) fn new(parts: &Parts, refused: Arc<Refused>) -> Self {
        let settings = parts.channels.get(&ChannelKind::Woocommerce).cloned().unwrap_or_else(ChannelSettings::default);
        Self { parts: parts.clone(), settings, refused, answers: Semaphore::new(ANSWERS_MAX) }
    }

    async fn pull_on(&self, inlet: &Inlet, note: &Note) -> Over {
        let clock = &self.parts.clock;
        let mut last = serde_json::from_slice::<Last>(note.last()).ok();
        loop {
            self.until_due(inlet, last.as_ref()).await;
            let began = clock.now();
            let since = last.as_ref().map_or(began, |last| last.began).minus(OVERLAP);
            match self.pull(inlet, since).await {
                // Before the first pull nothing was waited for.
                Ok(untold) if last.is_some() && untold > 0 => self.tell_untold(inlet, untold).await,
                Ok(_) => {}
                Err(over) => return over,
            }
            let ended = Last { began };
            if let Err(error) = note.keep(serde_json::to_vec(&ended).expect("our own types serialise")).await {
                // The next process asks for more than it needs, and finds it known.
                tracing::debug!(account = %inlet.account.owner.account, %error, "the end of the pull is not kept");
            }
            last = Some(ended);
        }
    }

    /// Until the next pull is due, by time or because a webhook of the shop was refused.
    async fn until_due(&self, inlet: &Inlet, last: Option<&Last>) {
        let (clock, now) = (&self.parts.clock, self.parts.clock.now());
        let Some(last) = last else { return };
        // A clock that went back must not hold the next pull for longer than usual.
        let due = last.began.min(now).plus(self.settings.pull_interval);
        tokio::select! {
            () = clock.sleep_until(due) => {}
            () = async {
                self.refused.taken(inlet.account.owner.account).await;
                clock.sleep(AFTER_REFUSAL).await;
            } => {}
        }
    }

    /// One pull to its end. Gives how many orders no webhook had told.
    async fn pull(&self, inlet: &Inlet, since: Timestamp) -> Result<usize, Over> {
        let (account, clock) = (&inlet.account, &self.parts.clock);
        let (mut next, mut pause, mut untold) = (Some(Pull::since(since)), PAUSE_FIRST, 0);
        while let Some(pull) = next {
            let Ok(request) = pull::request(account, &pull) else { return Err(Over::Stuck) };
            // Held until the pieces are on the log: they are as large as the answer.
            let held = self.answers.acquire().await.map_err(|_| Over::Again)?;
            let answer = self.parts.caller.call_up_to(request, self.settings.timeout, ANSWER_BYTES_MAX).await;
            let read = match answer {
                Ok(answer) => pull::read(account, &pull, &answer),
                Err(detail) => Err(Failure::Later { after: None, detail }),
            };
            let (wait, detail) = match read {
                Ok(pulled) => {
                    untold += self.untold(account, &pulled.pieces).await;
                    self.append(inlet, &pulled.pieces).await?;
                    (next, pause) = (pulled.next, PAUSE_FIRST);
                    continue;
                }
                Err(Failure::Keys { detail }) => {
                    let detail = format!("the shop does not let us read orders: {detail}");
                    inlet.tell_stuck(SUBJECT, "not_pulled", &detail).await;
                    return Err(Over::Stuck);
                }
                Err(Failure::Unreadable { detail }) => match pull.smaller() {
                    Some(smaller) => {
                        next = Some(smaller);
                        continue;
                    }
                    None => {
                        next = Some(Pull::since(since));
                        (PAUSE_LONGEST, detail)
                    }
                },
                Err(Failure::Later { after, detail }) => (after.unwrap_or(Duration::ZERO).min(PAUSE_LONGEST), detail),
            };
            drop(held);
            tracing::debug!(account = %account.owner.account, detail, "the shop does not answer with orders, asked again later");
            clock.sleep(wait.max(jittered(pause))).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
        Ok(untold)
    }

    /// Appends until the log has them.
    async fn append(&self, inlet: &Inlet, pieces: &[Piece]) -> Result<(), Over> {
        let mut pause = PAUSE_FIRST;
        loop {
            match inlet.append(pieces).await {
                Ok(()) => return Ok(()),
                Err(AppendError::Closed) => return Err(Over::Again),
                Err(AppendError::Full | AppendError::Away | AppendError::TooLarge { .. } | AppendError::Partition) => {}
            }
            self.parts.clock.sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// How many of these tell of orders made a while ago that the store knows nothing of. Changes are left out: a shop tells several of
    /// them as one.
    async fn untold(&self, account: &Account, pieces: &[Piece]) -> usize {
        let (owner, ids) = (account.owner, self.parts.keyring.ids());
        let tenant = owner.tenant.id();
        let late = self.parts.clock.now().minus(UNTOLD_AFTER);
        let mut keys = Vec::new();
        for piece in pieces.iter().filter(|piece| !piece.is_unparsable()) {
            let Ok(told) = channel(account.channel).parse(piece.body()) else { continue };
            let InboundBody::Resource { event: EventType::OrderCreated, .. } = told.body else { continue };
            if told.at < late {
                let id = ids.event(tenant, owner.account, told.body.kind_name(), told.platform_id.as_bytes(), &told.qualifier);
                keys.push(Key::Pointer(tenant, id.0));
            }
        }
        // A store that is away says nothing; the next pull overlaps.
        let Ok(found) = self.parts.store.read(keys).await else { return 0 };
        found.iter().filter(|row| row.is_none()).count()
    }

    async fn tell_untold(&self, inlet: &Inlet, orders: usize) {
        let instance = format!("untold:{}", self.parts.clock.now().as_secs() / UNTOLD_EVERY.as_secs());
        let advice = "no webhook told of them within ten minutes: it is likely disabled, look at the shop's webhooks";
        let news = News::Platform { kind: "orders_not_told".to_owned(), raw: json!({"orders": orders, "detail": advice}) };
        tracing::info!(account = %inlet.account.owner.account, orders, "a pull found orders that no webhook told");
        inlet.tell(SUBJECT, instance, news).await;
    }
}

impl Worker for Puller {
    fn work(&self) -> Work {
        Work::Pull
    }

    fn wants(&self, account: &Account) -> bool {
        let works = match account.row.state {
            AccountState::Active | AccountState::Paused | AccountState::Blocked | AccountState::Unverified => true,
            AccountState::Broken => false,
        };
        // Without keys there is nothing to ask with.
        works && account.channel == ChannelKind::Woocommerce && pull::request(account, &Pull::since(Timestamp::ZERO)).is_ok()
    }

    fn run(&self, mut job: Job) -> BoxFuture<'_, Over> {
        Box::pin(async move {
            let inlet = Inlet { parts: self.parts.clone(), account: job.account };
            tokio::select! {
                over = self.pull_on(&inlet, &job.note) => over,
                () = job.stop.told() => Over::Again,
            }
        })
    }
}
