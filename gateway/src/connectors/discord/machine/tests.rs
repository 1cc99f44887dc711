use serde_json::{Value, json};

use super::*;

/// Chance gives a half, always.
const HALF: f64 = 0.5;

fn options(intents: &str) -> Options {
    let intents = Intents::parse(intents).unwrap();
    Options { token: Secret::new("bot.token"), intents, version: "10".to_owned(), plain: false }
}

fn session(number: u64) -> Session {
    Session { id: "s1".into(), address: "wss://resume.example".into(), bot: "7".into(), number, intents: 12_288 }
}

fn fresh() -> Machine {
    Machine::new(options("12288"), None, Duration::ZERO, || HALF)
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// An action in a word.
fn word(action: &Action) -> String {
    match action {
        Action::Discover => "discover".to_owned(),
        Action::Connect(address) => format!("connect {address}"),
        Action::Send(frame) => {
            let frame: Value = serde_json::from_str(&frame.clone().expose()).unwrap();
            match frame["op"].as_u64().unwrap() {
                1 => format!("beat {}", frame["d"]),
                2 => format!("identify {} {}", frame["d"]["intents"], frame["d"]["shard"]),
                6 => format!("resume {} {}", frame["d"]["session_id"].as_str().unwrap(), frame["d"]["seq"]),
                _ => frame.to_string(),
            }
        }
        Action::Deliver(event) => format!("deliver {} {}", event.name, event.number),
        Action::Leave => "leave".to_owned(),
        Action::End(why) => format!("end {why:?}"),
    }
}

/// What a machine does with an input, at a second.
fn does(machine: &mut Machine, at: f64, input: Input<'_>) -> String {
    machine.on(input, secs(at)).iter().map(word).collect::<Vec<_>>().join(", ")
}

fn frame(op: u8, said: Value) -> String {
    json!({"op": op, "d": said, "s": null, "t": null}).to_string()
}

fn event(number: u64, name: &str, said: Value) -> String {
    json!({"op": 0, "d": said, "s": number, "t": name}).to_string()
}

fn hello() -> String {
    frame(10, json!({"heartbeat_interval": 40_000}))
}

fn ready() -> String {
    event(1, "READY", json!({"session_id": "s1", "resume_gateway_url": "wss://resume.example", "user": {"id": "7", "bot": true}}))
}

fn found(shards: u32, sessions_left: u32) -> Discovered {
    Discovered { address: "wss://gateway.example".into(), shards, sessions_left, reset_after: secs(3_600.0) }
}

/// A machine with a session that began at this second; its next heartbeat is due 20 s later.
fn live(at: f64) -> Machine {
    let mut machine = fresh();
    does(&mut machine, at, Input::Tick);
    does(&mut machine, at, Input::Discovered(Ok(found(1, 9))));
    does(&mut machine, at, Input::Opened);
    does(&mut machine, at, Input::Frame(&hello()));
    does(&mut machine, at, Input::Frame(&ready()));
    machine
}

#[test]
fn from_nothing_to_live() {
    let mut machine = fresh();
    assert_eq!(machine.deadline(), Some(Duration::ZERO));
    let hello = hello();
    let (ready, message) = (ready(), event(2, "MESSAGE_CREATE", json!({"id": "1"})));
    let again = event(2, "MESSAGE_CREATE", json!({"id": "1"}));
    let steps: Vec<(f64, Input<'_>, &str)> = vec![
        (0.0, Input::Tick, "discover"),
        (1.0, Input::Discovered(Ok(found(1, 9))), "connect wss://gateway.example/?v=10&encoding=json"),
        (2.0, Input::Opened, ""),
        (3.0, Input::Frame(&hello), "identify 12288 [0,1]"),
        (4.0, Input::Frame(&ready), "deliver READY 1"),
        (5.0, Input::Frame(&message), "deliver MESSAGE_CREATE 2"),
        (5.0, Input::Frame(&again), ""),
        (22.9, Input::Tick, ""),
        (23.0, Input::Tick, "beat null"),
        (24.0, Input::Frame(r#"{"op":11}"#), ""),
        (25.0, Input::Durable { session: "s1", number: 2 }, ""),
        (63.0, Input::Tick, "beat 2"),
    ];
    for (at, input, expected) in steps {
        assert_eq!(does(&mut machine, at, input), expected, "at {at}");
    }
    assert!(machine.is_live());
    assert_eq!(machine.session(), Some(&session(2)));
}

#[test]
fn only_what_is_durable_counts() {
    let mut machine = live(0.0);
    for number in 2..=4 {
        does(&mut machine, 1.0, Input::Frame(&event(number, "MESSAGE_CREATE", json!({}))));
    }
    for (told, number, counts) in [("s1", 2, 2), ("other", 4, 2), ("s1", 1, 2), ("s1", 3, 3)] {
        does(&mut machine, 2.0, Input::Durable { session: told, number });
        assert_eq!(machine.session().unwrap().number, counts, "{told} {number}");
    }
    assert_eq!(does(&mut machine, 3.0, Input::Closed(None)), "leave");
    assert_eq!(does(&mut machine, 3.0, Input::Tick), "connect wss://resume.example/?v=10&encoding=json");
    does(&mut machine, 3.0, Input::Opened);
    assert_eq!(does(&mut machine, 3.0, Input::Frame(&hello())), "resume s1 3");
    assert_eq!(does(&mut machine, 3.0, Input::Frame(&event(4, "MESSAGE_CREATE", json!({})))), "deliver MESSAGE_CREATE 4", "comes again");
    assert!(!machine.is_live(), "not before RESUMED");
    assert_eq!(does(&mut machine, 3.0, Input::Frame(&event(5, "RESUMED", json!({})))), "deliver RESUMED 5");
    assert!(machine.is_live());
}

#[test]
fn a_session_of_before_is_resumed_at_once() {
    let begin = |kept: Session, intents: &str| {
        let mut machine = Machine::new(options(intents), Some(kept), Duration::ZERO, || HALF);
        does(&mut machine, 0.0, Input::Tick)
    };
    assert_eq!(begin(session(9), "12288"), "connect wss://resume.example/?v=10&encoding=json");
    assert_eq!(begin(session(9), "46592"), "discover", "it was begun with other intents");
    let unprotected = Session { address: "ws://resume.example".into(), ..session(9) };
    assert_eq!(begin(unprotected, "12288"), "discover");
}

#[test]
fn codes_of_closing() {
    // Code; what is done at once; what is done at the next tick.
    let resumes = "connect wss://resume.example/?v=10&encoding=json";
    let cases = [
        (None, "leave", resumes),
        (Some(1000), "leave", resumes),
        (Some(1006), "leave", resumes),
        (Some(4000), "leave", resumes),
        (Some(4001), "leave", resumes),
        (Some(4002), "leave", resumes),
        (Some(4005), "leave", resumes),
        (Some(4008), "leave", resumes),
        (Some(4003), "leave", "discover"),
        (Some(4007), "leave", "discover"),
        (Some(4009), "leave", resumes),
        (Some(4004), "leave, end Credential", ""),
        (Some(4010), "leave, end Forbidden(4010)", ""),
        (Some(4011), "leave, end Forbidden(4011)", ""),
        (Some(4012), "leave, end Forbidden(4012)", ""),
        (Some(4013), "leave, end Forbidden(4013)", ""),
        (Some(4014), "leave, end Forbidden(4014)", ""),
        (Some(4999), "leave", resumes),
    ];
    for (code, at_once, then) in cases {
        let mut machine = live(0.0);
        assert_eq!(does(&mut machine, 10.0, Input::Closed(code)), at_once, "{code:?}");
        assert_eq!(does(&mut machine, 10.0, Input::Tick), then, "{code:?}");
    }
}

/// What a process missed that stood still may still be had; asked for twice it would be asked for for ever.
#[test]
fn a_session_that_timed_out_is_asked_for_once() {
    let mut machine = live(0.0);
    for (at, input, expected) in [
        (10.0, Input::Closed(Some(4009)), "leave"),
        (10.0, Input::Tick, "connect wss://resume.example/?v=10&encoding=json"),
        (10.0, Input::Opened, ""),
        (10.0, Input::Frame(&hello()), "resume s1 0"),
        (10.0, Input::Closed(Some(4009)), "leave"),
        (11.0, Input::Tick, "discover"),
    ] {
        assert_eq!(does(&mut machine, at, input), expected, "{at}");
    }
}

#[test]
fn frames_that_end_a_connection() {
    let cases = [
        (frame(7, Value::Null), "leave", "s1"),
        (frame(9, json!(true)), "leave", "s1"),
        (frame(9, json!(false)), "leave", ""),
        (frame(9, Value::Null), "leave", ""),
        ("no json".to_owned(), "leave", "s1"),
        (r#"{"op":0,"t":"X"}"#.to_owned(), "leave", "s1"),
        (frame(99, json!({})), "", "s1"),
        (hello(), "", "s1"),
    ];
    for (text, expected, session) in cases {
        let mut machine = live(0.0);
        assert_eq!(does(&mut machine, 10.0, Input::Frame(&text)), expected, "{text}");
        assert_eq!(machine.session().map_or("", |session| session.id.as_str()), session, "{text}");
    }
}

#[test]
fn an_invalid_session_waits_by_chance_and_identifies_not_too_soon() {
    let mut machine = live(0.0);
    does(&mut machine, 100.0, Input::Frame(&frame(9, json!(false))));
    assert_eq!(machine.deadline(), Some(secs(103.0)), "between one and five seconds");
    let mut machine = live(0.0);
    does(&mut machine, 1.0, Input::Frame(&frame(9, json!(false))));
    assert_eq!(does(&mut machine, 4.0, Input::Tick), "", "five seconds from one session to the next");
    assert_eq!(does(&mut machine, 5.0, Input::Tick), "discover");
}

#[test]
fn a_connection_that_only_looks_alive_is_left() {
    let mut machine = live(0.0);
    assert_eq!(does(&mut machine, 20.0, Input::Tick), "beat null");
    assert_eq!(does(&mut machine, 59.9, Input::Tick), "");
    assert_eq!(does(&mut machine, 60.0, Input::Tick), "leave");
    assert_eq!(does(&mut machine, 60.0, Input::Frame(&event(9, "MESSAGE_CREATE", json!({})))), "", "what comes after is not ours");
    assert_eq!(does(&mut machine, 60.0, Input::Tick), "connect wss://resume.example/?v=10&encoding=json");
}

#[test]
fn the_other_side_may_ask_for_a_heartbeat_but_not_for_many() {
    let mut machine = live(0.0);
    let asks = frame(1, json!(1));
    for (at, expected) in [(5.0, "beat null"), (5.5, ""), (6.0, "beat null")] {
        assert_eq!(does(&mut machine, at, Input::Frame(&asks)), expected, "at {at}");
    }
    assert_eq!(machine.deadline(), Some(secs(46.0)), "the next one is due an interval later");
}

#[test]
fn what_does_not_come_in_time() {
    // HELLO; then READY.
    let mut machine = fresh();
    does(&mut machine, 0.0, Input::Tick);
    does(&mut machine, 0.0, Input::Discovered(Ok(found(1, 9))));
    does(&mut machine, 0.0, Input::Opened);
    assert_eq!(machine.deadline(), Some(GREETING));
    assert_eq!(does(&mut machine, 15.0, Input::Tick), "leave");
    let mut machine = Machine::new(options("12288"), Some(session(5)), Duration::ZERO, || 0.9);
    does(&mut machine, 0.0, Input::Tick);
    does(&mut machine, 0.0, Input::Opened);
    does(&mut machine, 0.0, Input::Frame(&frame(10, json!({"heartbeat_interval": 200_000}))));
    assert_eq!(machine.deadline(), Some(STARTING));
    does(&mut machine, 50.0, Input::Frame(&event(6, "MESSAGE_CREATE", json!({}))));
    assert_eq!(machine.deadline(), Some(secs(110.0)), "a long replay is a sign of life");
    assert_eq!(does(&mut machine, 110.0, Input::Tick), "leave");
}

#[test]
fn waits_grow_and_end_with_the_first_answered_heartbeat() {
    let mut machine = live(0.0);
    let mut now = 10.0;
    let mut waits = Vec::new();
    for _ in 0..10 {
        does(&mut machine, now, Input::Closed(None));
        let due = machine.deadline().unwrap().as_secs_f64();
        waits.push(due - now);
        now = due;
        match does(&mut machine, now, Input::Tick).as_str() {
            "discover" => assert!(
                does(&mut machine, now, Input::Discovered(Ok(found(1, 0)))).starts_with("connect wss://gateway.example"),
                "sessions left do not matter to a resume"
            ),
            other => assert!(other.starts_with("connect wss://resume.example"), "{other}"),
        }
    }
    let rounded: Vec<f64> = waits.iter().map(|wait| (wait * 100.0).round() / 100.0).collect();
    assert_eq!(rounded, [0.0, 0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 45.0, 45.0, 45.0]);
    does(&mut machine, now, Input::Opened);
    assert_eq!(does(&mut machine, now, Input::Frame(&hello())), "resume s1 0", "never forgotten by us");
    does(&mut machine, now, Input::Frame(&event(2, "RESUMED", json!({}))));
    does(&mut machine, now, Input::Frame(r#"{"op":11}"#));
    does(&mut machine, now, Input::Closed(None));
    assert_eq!(machine.deadline(), Some(secs(now)), "at once again");
}

#[test]
fn what_the_api_may_say() {
    let later = |after| Err(Undiscovered::Later { status: 503, after });
    let cases: Vec<(Result<Discovered, Undiscovered>, &str, Option<f64>)> = vec![
        (Ok(found(1, 1)), "connect wss://gateway.example/?v=10&encoding=json", None),
        (Ok(found(1, 0)), "", Some(3_600.0)),
        (Ok(Discovered { reset_after: Duration::ZERO, ..found(1, 0) }), "", Some(60.0)),
        (Ok(Discovered { address: "ws://gateway.example".into(), ..found(1, 1) }), "leave", Some(0.0)),
        (Err(Undiscovered::Token), "leave, end Credential", None),
        (later(None), "leave", Some(0.0)),
        (later(Some(secs(30.0))), "leave", Some(30.0)),
    ];
    for (answer, expected, deadline) in cases {
        let mut machine = fresh();
        does(&mut machine, 0.0, Input::Tick);
        assert_eq!(does(&mut machine, 0.0, Input::Discovered(answer)), expected);
        assert_eq!(machine.deadline(), deadline.map(secs), "{expected}");
    }
}

#[test]
fn direct_messages_come_to_the_first_of_the_shards() {
    for (intents, shards, expected) in
        [("12288", 9, "identify 12288 [0,9]"), ("45056", 9, "identify 45056 [0,9]"), ("46592", 9, "identify 46592 [0,1]")]
    {
        let mut machine = Machine::new(options(intents), None, Duration::ZERO, || HALF);
        does(&mut machine, 0.0, Input::Tick);
        does(&mut machine, 0.0, Input::Discovered(Ok(found(shards, 9))));
        does(&mut machine, 0.0, Input::Opened);
        assert_eq!(does(&mut machine, 0.0, Input::Frame(&hello())), expected);
    }
}

#[test]
fn when_the_log_takes_nothing_the_connection_is_left_until_it_does() {
    let mut machine = live(0.0);
    does(&mut machine, 1.0, Input::Frame(&event(2, "MESSAGE_CREATE", json!({}))));
    assert_eq!(does(&mut machine, 1.0, Input::Full), "leave");
    assert_eq!((machine.deadline(), does(&mut machine, 2.0, Input::Tick)), (None, String::new()));
    does(&mut machine, 90.0, Input::Durable { session: "s1", number: 2 });
    assert_eq!(does(&mut machine, 90.0, Input::Drained), "");
    assert_eq!(does(&mut machine, 90.0, Input::Tick), "connect wss://resume.example/?v=10&encoding=json");
    assert_eq!(does(&mut machine, 90.0, Input::Drained), "", "only once");
}

#[test]
fn what_is_not_waited_for_changes_nothing() {
    let greets = hello();
    let inputs = || {
        [Input::Opened, Input::Frame(&greets), Input::Closed(Some(4004)), Input::Discovered(Ok(found(1, 1))), Input::Full, Input::Drained]
    };
    for input in inputs() {
        let mut machine = fresh();
        assert_eq!(does(&mut machine, 0.0, input), "");
        assert_eq!(does(&mut machine, 0.0, Input::Tick), "discover");
    }
    let mut over = live(0.0);
    does(&mut over, 0.0, Input::Closed(Some(4004)));
    for input in inputs() {
        assert_eq!(does(&mut over, 1.0, input), "");
    }
    assert_eq!((over.deadline(), does(&mut over, 99.0, Input::Tick)), (None, String::new()));
}

#[test]
fn the_token_is_shown_by_nothing() {
    let shown = format!(
        "{:?} {:?}",
        Outgoing::identify(&Secret::new("bot.token"), Intents::DIRECT, 1),
        Outgoing::resume(&Secret::new("bot.token"), "s", 1)
    );
    assert_eq!(shown, "Outgoing(op 2) Outgoing(op 6)");
}

/// One of the inputs, by number, at a time.
fn input_of(kind: usize, number: u64, frames: &[String]) -> Input<'_> {
    match kind {
        0 => Input::Discovered(Ok(found(1, 1))),
        1 => Input::Discovered(Err(Undiscovered::Later { status: 500, after: None })),
        2 | 3 => Input::Opened,
        4 => Input::Closed(number.is_multiple_of(3).then_some(4000 + number as u16)),
        5 => Input::Durable { session: "s1", number },
        6 => Input::Full,
        7 => Input::Drained,
        8..=11 => Input::Tick,
        kind => Input::Frame(&frames[kind % frames.len()]),
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 2_000, ..proptest::prelude::ProptestConfig::default() })]

    /// Whatever comes in whatever order: there is one connection at most, nothing is sent without one, and nothing is asked of a machine
    /// that is over.
    #[test]
    fn one_connection_at_most(steps in proptest::collection::vec((0usize..40, 0u64..12, 0u64..50_000), 0..80)) {
        let frames = [hello(), ready(), frame(11, Value::Null), frame(7, Value::Null), frame(9, json!(true)), frame(9, json!(false)), frame(1, Value::Null),
            event(2, "MESSAGE_CREATE", json!({})), event(3, "RESUMED", json!({})), event(9, "X", json!([1])), "{".to_owned(), "null".to_owned()];
        let mut machine = fresh();
        let (mut now, mut asked, mut is_open, mut over) = (Duration::ZERO, 0u32, false, false);
        for (kind, number, later) in steps {
            now += Duration::from_millis(later);
            let input = input_of(kind, number, &frames);
            // The edge tells of a connection only what there is.
            if matches!(input, Input::Opened) && asked == 0 || matches!(input, Input::Frame(_) | Input::Closed(_)) && !is_open {
                continue;
            }
            if matches!(input, Input::Opened) {
                (asked, is_open) = (0, true);
            }
            for action in machine.on(input, now) {
                proptest::prop_assert!(!over, "{} after the end", word(&action));
                match action {
                    Action::Connect(_) => {
                        proptest::prop_assert!(!is_open && asked == 0);
                        asked += 1;
                    }
                    Action::Send(_) | Action::Deliver(_) => proptest::prop_assert!(is_open),
                    Action::Leave => (asked, is_open) = (0, false),
                    Action::End(_) => over = true,
                    Action::Discover => proptest::prop_assert!(!is_open),
                }
            }
            let waits = machine.deadline().is_some() || over || asked > 0 || matches!(machine.state, State::Asking | State::Full);
            proptest::prop_assert!(waits, "it would never wake: {:?}", machine.state);
        }
    }
}
