//! The words for what a directory holds: tenants, accounts, endpoints, keys; and dead letters.

use clap::{Args, Subcommand};

use super::{ACCOUNT_EXAMPLES, ENDPOINT_EXAMPLES, IdArgs, ListArgs, pair};

/// `trunkline tenant`.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// List tenants
    List(ListArgs),
    /// Make a tenant; prints its first key, once
    Create {
        /// Its name
        #[arg(long)]
        name: String,
    },
    /// Show a tenant
    Show(IdArgs),
    /// Delete a tenant
    Delete(IdArgs),
}

/// What an account is made of or changed to.
#[derive(Debug, Args, Default)]
pub struct AccountMembers {
    /// The platform's address, for proxies and simulators
    #[arg(long, value_name = "URL")]
    pub api_base: Option<String>,
    /// A member of the account, such as phone_number_id=1055
    #[arg(long = "field", value_name = "NAME=VALUE", value_parser = pair)]
    pub fields: Vec<(String, String)>,
    /// A secret from a file, without the line end
    #[arg(long, value_name = "NAME=PATH", value_parser = pair)]
    pub secret_file: Vec<(String, String)>,
    /// A secret from an environment variable
    #[arg(long, value_name = "NAME=VAR", value_parser = pair)]
    pub secret_env: Vec<(String, String)>,
    /// A secret as it is: other users of this machine can see it
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub secret: Vec<(String, String)>,
}

/// `trunkline account`.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// List accounts
    List(ListArgs),
    /// Make an account
    #[command(after_help = ACCOUNT_EXAMPLES)]
    Create {
        /// whatsapp, telegram …
        #[arg(long)]
        channel: String,
        /// A name for people
        #[arg(long)]
        name: String,
        #[command(flatten)]
        members: AccountMembers,
    },
    /// Show an account and the address for the platform's webhooks
    Show(IdArgs),
    /// Change an account; a new secret keeps the one before valid
    #[command(after_help = ACCOUNT_EXAMPLES)]
    Set {
        /// Its id
        id: String,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        members: AccountMembers,
    },
    /// Delete an account
    Delete(IdArgs),
    /// Call the platform with its credentials
    Check(IdArgs),
    /// Stop sending
    Pause(IdArgs),
    /// Go on sending
    Resume(IdArgs),
    /// End the secrets from before the last rotation
    RevokePrevious(IdArgs),
}

/// What an endpoint is made of or changed to.
#[derive(Debug, Args, Default)]
pub struct EndpointMembers {
    /// Only these types, such as message.received or message.*; "*" is all
    #[arg(long, value_delimiter = ',', value_name = "TYPES")]
    pub events: Vec<String>,
    /// Only of these accounts
    #[arg(long = "account", value_delimiter = ',', value_name = "ACC")]
    pub accounts: Vec<String>,
    /// A header of every delivery
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    pub headers: Vec<(String, String)>,
    /// Another member as the API takes it, in JSON or as text, such as timeout=10s
    #[arg(long = "field", value_name = "NAME=VALUE", value_parser = pair)]
    pub fields: Vec<(String, String)>,
}

/// `trunkline endpoint`.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// List endpoints
    List(ListArgs),
    /// Make an endpoint; prints its signing secret, once
    #[command(after_help = ENDPOINT_EXAMPLES)]
    Create {
        /// Where to deliver (--url is the API's own address)
        #[arg(long = "to-url", value_name = "URL")]
        target: String,
        #[command(flatten)]
        members: EndpointMembers,
    },
    /// Show an endpoint
    Show(IdArgs),
    /// Change an endpoint
    Set {
        /// Its id
        id: String,
        /// A new address
        #[arg(long = "to-url", value_name = "URL")]
        target: Option<String>,
        #[command(flatten)]
        members: EndpointMembers,
    },
    /// Delete an endpoint
    Delete(IdArgs),
    /// Send it a test event
    Test(IdArgs),
    /// Stop delivering; events wait
    Pause(IdArgs),
    /// Go on delivering
    Resume(IdArgs),
    /// Try now what waits for the endpoint
    Retry(IdArgs),
    /// A new signing secret, printed once; the one before signs too for a while
    RotateSecret(IdArgs),
}

/// `trunkline dlq`.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List dead letters of all tenants: what they are, not what they say
    List(ListArgs),
    /// Show one, with what it says
    Show(DeadLetterArgs),
    /// Let one in again, or all
    Requeue {
        /// Its tenant
        #[arg(required_unless_present = "all", requires = "id")]
        tenant: Option<String>,
        /// Its id
        id: Option<String>,
        /// All that are listed
        #[arg(long, conflicts_with = "tenant")]
        all: bool,
        /// Of all, only those that were parked for this reason
        #[arg(long, requires = "all")]
        reason: Option<String>,
    },
    /// Forget one for ever
    Drop(DeadLetterArgs),
}

/// One dead letter.
#[derive(Debug, Args)]
pub struct DeadLetterArgs {
    /// Its tenant
    pub tenant: String,
    /// Its id
    pub id: String,
}

/// `trunkline key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List keys (never the keys themselves)
    List(ListArgs),
    /// Make a key; printed once
    Create {
        /// A name for people
        #[arg(long)]
        name: String,
        /// What it may do
        #[arg(long = "scope", value_delimiter = ',', required = true)]
        scopes: Vec<String>,
        /// Whose (admin only; default: the tenant of the key in use)
        #[arg(long, value_name = "TEN")]
        tenant: Option<String>,
        /// When it ends, such as 2027-01-01T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Delete a key: it ends at once
    Delete(IdArgs),
    /// A new key in place of this one, printed once
    Rotate(IdArgs),
}
