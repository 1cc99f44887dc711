//! Tenants beside each other: what one of them has too much of waits, and the others' goes on.

mod rig;

use messaging::content::{Content, Template};
use messaging::record::Class;
use rig::Rig;

/// What an account may send at once.
const BURST: usize = 80;

fn template() -> Content {
    Content::Template(Template { name: "offer".into(), language: "en".into(), params: Vec::new(), components: None })
}

/// The accounts of one tenant have more to send than their rates let through, and the clock stands still: what waits would hold every
/// record that a shard may have in work, as long as it waits.
#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_waiting_sends_leave_the_others_room() {
    const ACCOUNTS: u8 = 10;
    const SENDS: usize = 700;
    let rig = Rig::start().await;
    let quiet = rig.neighbour().await;
    let mut accounts = vec![rig.account];
    for number in 1..ACCOUNTS {
        accounts.push(rig.another_account(50 + number).await);
    }
    for person in 0..SENDS {
        for account in &accounts {
            rig.send_as(rig.tenant, *account, &format!("1555{person:07}"), template()).await;
        }
    }
    rig.until(|rig| rig.platform.calls() >= BURST * accounts.len()).await;
    for person in 0..20 {
        rig.send_as(quiet.tenant, quiet.account, &format!("1666{person:07}"), template()).await;
    }
    rig.until(|_| quiet.platform.calls() == 20).await;
    // Nothing of the other's was lost: it waits, and is known to.
    let all = SENDS * accounts.len();
    rig.until(|rig| rig.platform.calls() + rig.outlook.waiting_of(rig.tenant.id()).unwrap() as usize == all).await;
    rig.until(|rig| rig.outlook.ahead(quiet.account, Class::Interactive) == Some(0)).await;
    rig.stop().await;
}
