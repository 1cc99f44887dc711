//! A second tenant beside the rig's own, with an account, an endpoint and servers of its own.

use std::sync::Arc;

use messaging::channels::ChannelKind;
use messaging::clock::Clock;
use messaging::content::{Content, Handle};
use messaging::directory::{Directory, DirectoryRow, account_aad};
use messaging::ids::{AccountId, EndpointId, TenantId};
use messaging::keeper::Change;
use messaging::log::Topic;
use messaging::record::{Command, Record, SendCommand};
use messaging::tenant::{Owned, Tenant};

use super::Rig;
use super::make::rows;
use super::server::Server;

pub struct Neighbour {
    pub tenant: Tenant,
    pub account: AccountId,
    pub platform: Arc<Server>,
}

impl Rig {
    pub async fn neighbour(&self) -> Neighbour {
        let (tenant, account, endpoint) = (TenantId([101; 16]), AccountId([102; 16]), EndpointId([103; 16]));
        let platform =
            Server::start(|n| format!(r#"{{"messaging_product":"whatsapp","messages":[{{"id":"wamid.of.neighbour.{n}"}}]}}"#)).await;
        let rows =
            rows(ChannelKind::Whatsapp, &self.keyring, (tenant, account, endpoint), &platform.url, &self.inbox.url, self.clock.now());
        self.keeper.change::<()>(|_| Ok(rows.iter().cloned().map(Change::put).collect())).await.unwrap();
        Neighbour { tenant: Tenant::for_tests(tenant), account, platform }
    }

    /// One more account of the rig's tenant, on the same platform.
    pub async fn another_account(&self, number: u8) -> AccountId {
        let id = AccountId([number; 16]);
        let change = |directory: &Directory| {
            let (known, key) = (directory.account(self.account).unwrap(), directory.tenant_key(self.tenant).unwrap());
            let mut row = known.row.clone();
            row.id = id;
            row.public.insert("phone_number_id".into(), format!("2000{number}"));
            row.secrets = key.seal_value(&account_aad(row.tenant, id), &known.secrets);
            Ok(vec![Change::put(DirectoryRow::Account(row))])
        };
        self.keeper.change::<()>(change).await.unwrap();
        id
    }

    /// A send of a tenant through one of its accounts.
    pub async fn send_as(&self, tenant: Tenant, account: AccountId, phone: &str, content: Content) {
        let n = self.next_message.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let (ids, to) = (self.keyring.ids(), Handle::phone(phone));
        let send = SendCommand::plain(ids.keyed_message(tenant.id(), &n.to_string()), to.clone(), content);
        let conversation = ids.conversation(tenant.id(), account, to.expose());
        let command = Command::Send(Box::new(send));
        let record = Record::command(Owned { tenant, account }, ChannelKind::Whatsapp, conversation, &command, self.clock.now());
        self.append(record, Topic::Outbound).await;
    }
}
