//! From a record's bytes to its outcome.

use super::*;

impl Shard<'_> {
    pub(super) fn parse(&mut self, entries: Vec<(Topic, Entry)>) -> Vec<Incoming> {
        let mut incoming = Vec::with_capacity(entries.len());
        for (topic, entry) in entries {
            self.newest_log_time = self.newest_log_time.max(entry.appended_at);
            if topic == Topic::Inbound {
                self.inbound_at = entry.appended_at;
            }
            let slot = self.progress.open(topic, entry.position);
            match Record::decode(&entry.payload, self.parts.keyring.log()) {
                Ok(record) => {
                    let parsed = self.parse_record(&record, topic, entry.position);
                    incoming.push(Incoming { topic, position: entry.position, slot, record: Tracked::new(record), parsed });
                }
                Err(error) => {
                    // Not ours, or damaged beyond its checksum: nothing in it can be trusted, not even whose it is.
                    tracing::error!(shard = self.id, position = entry.position.0, %error, "record left out");
                    metrics::DEAD_LETTERS_TOTAL
                        .at([metrics::DeadLetterQueue::Inbound.index(), metrics::DeadLetterReason::Unreadable.index()])
                        .increment(1);
                    self.progress.release(slot);
                }
            }
        }
        incoming
    }

    fn parse_record(&self, record: &Record, topic: Topic, position: Position) -> Result<Parsed, Unfit> {
        for _ in 0..TRIES {
            let parsed = caught_here(|| {
                self.parts.options.faults.at(FaultPoint::Parse, [record.conversation]);
                decide::parse(record, self.parts.keyring.ids())
            });
            match parsed {
                Ok(parsed) => return parsed,
                Err(panicked) => self.tell_record("parse", topic, position, &panicked),
            }
        }
        Err(Unfit::Panic)
    }

    fn tell_record(&self, place: &'static str, topic: Topic, position: Position, panicked: &Panicked) {
        let (shard, topic, position, at) = (self.id, topic.name(), position.0, &panicked.at);
        tracing::error!(shard, place, topic, position, at, "a record panicked");
    }

    pub(super) fn decide(&mut self, desk: &mut Desk<'_>, incoming: &Incoming) -> Outcome {
        let record = incoming.record.get();
        if let Ok(Parsed::Command(command)) = &incoming.parsed
            && let messaging::record::Command::Send(send) = &**command
        {
            self.waits.taken(record.account, send.class, record.accepted_at);
        }
        let parsed = match &incoming.parsed {
            Ok(parsed) => parsed,
            Err(unfit) => return quarantine(desk, record, *unfit, &self.parts.keyring),
        };
        if let Some((_, Conversation { alias_of: Some(to), .. })) = desk.states.get(&record.conversation)
            && !record.moved
            && !matches!(parsed, Parsed::Command(command) if matches!(**command, messaging::record::Command::Link { .. }))
        {
            // Known under another handle: its own shard decides. (Same shard: `load_states` moved it already.)
            desk.effects.records.push(record.moved_to(*to));
            return Outcome::Moved;
        }
        let mut unfit = Unfit::Panic;
        for _ in 0..TRIES {
            let mark = desk.mark(record.conversation);
            let decided = caught_here(|| {
                self.parts.options.faults.at(FaultPoint::Decide, [record.conversation]);
                decide::record(desk, record, parsed)
            });
            match decided {
                Ok(Ok(outcome)) => {
                    if record.requeued {
                        desk.delete(Key::Quarantine(record.tenant.id(), parked_id(record, &self.parts.keyring)));
                    }
                    return outcome;
                }
                Ok(Err(found)) => unfit = found,
                Err(panicked) => {
                    unfit = Unfit::Panic;
                    self.tell_record("decide", incoming.topic, incoming.position, &panicked);
                }
            }
            desk.roll_back(&mark);
        }
        quarantine(desk, record, unfit, &self.parts.keyring)
    }
}

/// Parks a record that cannot be decided.
fn quarantine(desk: &mut Desk<'_>, record: &Record, unfit: Unfit, keyring: &Keyring) -> Outcome {
    desk.write(quarantined(record, unfit, keyring));
    Outcome::Quarantined
}

/// The row of a parked record, counted.
pub(super) fn quarantined(record: &Record, unfit: Unfit, keyring: &Keyring) -> Write {
    let row = Quarantined {
        account: record.account,
        channel: record.channel,
        reason: unfit.name().to_owned(),
        at: record.accepted_at,
        record: record.encode(keyring.log()).to_vec(),
    };
    let reason = match unfit {
        Unfit::Body => metrics::DeadLetterReason::Unparsable,
        Unfit::Owner | Unfit::Row | Unfit::TooLarge => metrics::DeadLetterReason::Unreadable,
        Unfit::Panic => metrics::DeadLetterReason::Panicked,
    };
    metrics::DEAD_LETTERS_TOTAL.at([metrics::DeadLetterQueue::Inbound.index(), reason.index()]).increment(1);
    let value = postcard::to_stdvec(&row).expect("our own types serialise");
    Write::put(Key::Quarantine(record.tenant.id(), parked_id(record, keyring)), value, record.accepted_at)
}

/// Under which id a record is parked: by what it says, so that one that comes again is parked once.
fn parked_id(record: &Record, keyring: &Keyring) -> QuarantineId {
    QuarantineId(keyring.ids().content(record.tenant.id(), record.account, &record.body))
}
