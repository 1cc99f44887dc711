//! Accounts, recipients, budgets and costs.

use std::time::Duration;

use messaging::channels::{ChannelKind, Fault, RefusalCost, Settlement};
use messaging::content::Handle;
use messaging::limit::{Budget, BudgetScope};
use serde_json::{Value, json};

use super::{BOT_TOKEN, TOKEN, settings, telegram};

#[test]
fn fields() {
    let fields = telegram().fields();
    let shape: Vec<_> = fields.iter().map(|field| (field.name, field.secret, field.required)).collect();
    assert_eq!(shape, [("bot_token", true, true), ("secret_token", true, true), ("username", false, false)]);
    let fits = |name: &str, value: &str| (fields.iter().find(|field| field.name == name).unwrap().check)(value).is_ok();
    for (name, good, bad) in [
        ("bot_token", vec![BOT_TOKEN, "1:a"], vec!["", ":", "1:", ":a", "a:a", "1:a:b", "1:a/b", "1:a b", "1:ä", "1:a?x=1"]),
        ("username", vec!["example_shop_bot"], vec!["", "@example_bot", "abcd", "exämple"]),
        ("secret_token", vec![TOKEN, "a"], vec!["", "a b", "a.b", "ä"]),
    ] {
        assert!(good.iter().all(|value| fits(name, value)), "{name}");
        assert!(!bad.iter().any(|value| fits(name, value)), "{name}");
    }
    for (length, fit) in [(255, true), (256, true), (257, false)] {
        assert_eq!(fits("secret_token", &"x".repeat(length)), fit, "{length}");
    }
}

#[test]
fn recipients() {
    let recipient = |to: &Value| telegram().recipient(to.as_object().unwrap());
    for (id, handle) in [
        (json!("4711"), Handle::chat("4711")),
        (json!(4711), Handle::chat("4711")),
        (json!("004711"), Handle::chat("4711")),
        (json!(4_503_599_627_370_495_i64), Handle::chat("4503599627370495")),
        (json!("-1001234567890"), Handle::group("-1001234567890")),
        (json!(-1_001_234_567_890_i64), Handle::group("-1001234567890")),
    ] {
        assert_eq!(recipient(&json!({ "chat_id": id })), Ok(handle.clone()), "{id}");
        let again = telegram().recipient_json(&handle);
        assert_eq!(recipient(&again), Ok(handle), "{again}");
    }
    for bad in [
        json!("@shop"),
        json!("shop"),
        json!(""),
        json!("-"),
        json!("+4711"),
        json!(" 4711"),
        json!("0"),
        json!(0),
        json!("-0"),
        json!(1.5),
        json!(null),
        json!("99999999999999999999"),
    ] {
        let Err(Fault { pointer, detail }) = recipient(&json!({ "chat_id": bad })) else { panic!("{bad} is no chat") };
        assert_eq!(pointer, "/chat_id");
        assert!(detail.contains("a bot cannot write to a user name"), "{detail}");
    }
    assert_eq!(recipient(&json!({})), Err(Fault::new("/chat_id", "is missing")));
    assert_eq!(recipient(&json!({ "chat_id": 1, "pho/ne": "1" })).unwrap_err().pointer, "/pho~1ne");
    assert_eq!(telegram().short_recipient("4711"), Ok(Handle::chat("4711")));
    assert_eq!(telegram().short_recipient("-4711"), Ok(Handle::group("-4711")));
    assert!(telegram().short_recipient("@shop").is_err());
}

fn text() -> messaging::content::Content {
    messaging::content::Content::Text(messaging::content::Text { body: "hi".to_owned(), preview_url: None })
}

#[test]
fn budgets() {
    let pair = |rate_per_second: f64, burst: u32| Budget { scope: BudgetScope::Pair, rate_per_second, burst };
    let account = Budget { scope: BudgetScope::Account, rate_per_second: 30.0, burst: 10 };
    assert_eq!(telegram().budgets(&settings(), &Handle::chat("4711"), &text()), [pair(1.0, 3), account]);
    let [group, of_account] = telegram().budgets(&settings(), &Handle::group("-4711"), &text())[..] else { panic!("two budgets") };
    assert_eq!((group.burst, of_account), (20, account));
    assert!((group.rate_per_second * 60.0 - 20.0).abs() < 1e-9, "20 a minute");
    let slow = messaging::channels::ChannelSettings { per_account: 0.1, ..settings() };
    assert_eq!(telegram().budgets(&slow, &Handle::chat("4711"), &text())[1].burst, 1);
}

#[test]
fn costs() {
    assert_eq!(telegram().kind(), ChannelKind::Telegram);
    assert_eq!(telegram().window(&settings(), &crate::account(None)), None);
    assert_eq!(telegram().settlement(), Settlement::Never);
    let second = Duration::from_secs(1);
    let cost = RefusalCost {
        status: 503,
        deadline: second,
        redelivered_for: second * 86_400,
        punished_after: None,
        punished_at: None,
        punishment: "",
    };
    assert_eq!(telegram().refusal_cost(), cost);
}
