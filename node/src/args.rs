//! The words of the command line: every command, its flags, and help that teaches.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod manage;
mod operate;
#[cfg(test)]
mod tests;

pub use manage::*;
pub use operate::*;

/// What `trunkline` alone prints.
pub const SHORT_HELP: &str = "\
trunkline - gateway and router for business messaging

Three commands to begin with:
  trunkline dev                                         everything in one process, with simulated platforms
  trunkline send --to +15550100 --text hello --wait     send a message and watch it arrive
  trunkline listen --forward-to http://127.0.0.1:3000/  see every event, and try your own webhook handler

All commands: trunkline --help
";

const CLI_EXAMPLES: &str = "\
Where the server and the key come from, in this order:
  1. --url and --key
  2. TRUNKLINE_URL and TRUNKLINE_KEY
  3. a running `trunkline dev` of the same user

Exit codes: 0 good, 1 failed, 2 wrong usage, 3 configuration refused, 4 a dependency is unreachable, 130 interrupted";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version, about = "Gateway and router for business messaging", after_help = CLI_EXAMPLES)]
pub struct Cli {
    /// Base address of the API, such as http://127.0.0.1:8080
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// API key; better in the environment (TRUNKLINE_KEY), where other users do not see it
    #[arg(long, global = true, value_name = "KEY")]
    pub key: Option<String>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; nothing prints the short help.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, with simulated platforms and an inbox for events
    #[command(after_help = "Examples:\n  trunkline dev\n  trunkline dev --data ./data --port 9000\n  trunkline dev --set log.partitions=4")]
    Dev(DevArgs),
    /// Run a production node
    #[command(
        after_help = "Examples:\n  trunkline check-config --config /etc/trunkline.toml\n  trunkline serve --config /etc/trunkline.toml\n  \
                            trunkline serve --config /etc/trunkline.toml --role gateway"
    )]
    Serve(ServeArgs),
    /// Send a message
    #[command(after_help = SEND_EXAMPLES)]
    Send(SendArgs),
    /// Print events as they happen, and forward them signed to a URL
    #[command(after_help = LISTEN_EXAMPLES)]
    Listen(ListenArgs),
    /// Watch platform calls, webhook attempts and refusals as they happen
    #[command(after_help = "Examples:\n  trunkline tail\n  trunkline tail --errors\n  trunkline tail --channel whatsapp --json | jq .")]
    Tail(TailArgs),
    /// Tenants (needs a key with the admin scope)
    #[command(subcommand, after_help = "Examples:\n  trunkline tenant create --name \"Shop\"\n  trunkline tenant list")]
    Tenant(TenantCommand),
    /// Channel accounts: a WhatsApp number, a Telegram bot
    #[command(subcommand, after_help = ACCOUNT_EXAMPLES)]
    Account(AccountCommand),
    /// Subscribers' webhook endpoints
    #[command(subcommand, after_help = ENDPOINT_EXAMPLES)]
    Endpoint(EndpointCommand),
    /// API keys
    #[command(
        subcommand,
        after_help = "Examples:\n  trunkline key create --name shop --scope messages:send,messages:read\n  trunkline key rotate key_…"
    )]
    Key(KeyCommand),
    /// Records that were accepted and could not be worked on (needs a key with the admin scope)
    #[command(subcommand, after_help = DLQ_EXAMPLES)]
    Dlq(DlqCommand),
    /// Check a configuration and say everything that is wrong with it
    #[command(after_help = "Example:\n  trunkline check-config --config /etc/trunkline.toml\n\nExit code 3 when it is refused.")]
    CheckConfig(CheckConfigArgs),
    /// Print defaults, explain a key, show effective values and where each came from
    #[command(
        subcommand,
        after_help = "Examples:\n  trunkline config defaults > trunkline.toml\n  trunkline config explain log.partitions\n  \
                      trunkline config show --config /etc/trunkline.toml"
    )]
    Config(ConfigCommand),
    /// Topics of the log over Kafka: what has to change, and changing it
    #[command(
        subcommand,
        after_help = "Examples:\n  trunkline topics plan --config /etc/trunkline.toml\n  trunkline topics apply --replication 1 --partitions 4\n\n\
                      Nothing is ever deleted. Raising the partitions of keyed topics moves conversations to other partitions, so that\n\
                      order could break: it is refused without --new-generation, for a log that was drained before."
    )]
    Topics(TopicsCommand),
    /// Schema of the store over CQL: where it stands, and bringing it up to date
    #[command(
        subcommand,
        after_help = "Examples:\n  trunkline migrate status --config /etc/trunkline.toml\n  trunkline migrate apply\n\n\
                      Safe to run several times and several at once. Run it before the processes of a new version start."
    )]
    Migrate(MigrateCommand),
    /// Load generator and report
    #[command(
        after_help = "Examples:\n  trunkline bench ingress --rate 2000 --duration 30s\n  trunkline bench ratio --duration 60s --json"
    )]
    Bench(BenchArgs),
    /// Ask a node whether it is ready; for containers
    #[command(
        after_help = "Example:\n  trunkline healthcheck --admin http://127.0.0.1:9090\n\nExit code 0 ready, 1 not ready, 4 unreachable."
    )]
    Healthcheck(HealthcheckArgs),
    /// Print the version
    Version,
    /// A bare HTTP server to compare with (used by `bench ratio`)
    #[command(hide = true)]
    BenchBare(BenchBareArgs),
}

const SEND_EXAMPLES: &str = "\
Examples:
  trunkline send --to +15550100 --text hello --wait
  trunkline send --to 4711 --text hello                        a whole number is a Telegram chat
  trunkline send --to +15550100 --template order_update:en:A-17
  trunkline send --to +15550100 --text hello --template order_update:en:A-17
                                                               the template where free text is not allowed
  trunkline send --to +15550100 --image https://example.com/a.jpg --caption Hello
  trunkline send --file message.json --dry-run                 all checks, nothing is sent";

const DLQ_EXAMPLES: &str = "\
Examples:
  trunkline dlq list
  trunkline dlq show ten_… qua_…                 with what it says: personal data
  trunkline dlq requeue ten_… qua_…
  trunkline dlq requeue --all --reason unknown_owner
  trunkline dlq drop ten_… qua_…

What is requeued leaves the list when it is worked; what fails again stays.";

const LISTEN_EXAMPLES: &str = "\
Examples:
  trunkline listen
  trunkline listen --events 'message.*' --since 10m
  trunkline listen --forward-to http://127.0.0.1:3000/hook
  trunkline listen --print-secret          the secret that signs what is forwarded; the same every time

A forwarded event is tried once. For retries and order make an endpoint: trunkline endpoint create --help";

const ACCOUNT_EXAMPLES: &str = "\
Examples:
  trunkline account create --channel whatsapp --name Shop --field phone_number_id=1055 \\
      --secret-file access_token=token.txt --secret-env app_secret=APP_SECRET --secret-file verify_token=verify.txt
  trunkline account check acc_…
  trunkline account set acc_… --secret-file access_token=new.txt   rotates: the one before stays valid
  trunkline account revoke-previous acc_…                          until this

Secrets in arguments (--secret) are seen by other users of the machine; prefer --secret-file and --secret-env.";

const ENDPOINT_EXAMPLES: &str = "\
Examples:
  trunkline endpoint create --to-url https://crm.example/hook --events 'message.*'
  trunkline endpoint test ep_…
  trunkline endpoint rotate-secret ep_…";

/// `trunkline dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Keep the data in this folder (default: a temporary one, gone at the end)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Port of the API
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Seed of the simulated platforms (default: drawn)
    #[arg(long)]
    pub seed: Option<u64>,
    /// Set a configuration key
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

/// `trunkline serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What this process does (default: as configured, which is both)
    #[arg(long = "role", value_delimiter = ',', value_enum)]
    pub roles: Vec<RoleName>,
    /// Set a configuration key
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

/// A role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Takes webhooks and API calls.
    Gateway,
    /// Decides and carries out.
    Router,
}

impl RoleName {
    /// As it stands in `node.roles`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Router => "router",
        }
    }
}

/// `trunkline send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// To whom: +phone, a Telegram chat's number, a mail address, cnv_…, con_…, or a channel's own such as psid:1234
    #[arg(long, allow_hyphen_values = true, required_unless_present = "file")]
    pub to: Option<String>,
    /// Text
    #[arg(long, conflicts_with_all = ["image", "document"])]
    pub text: Option<String>,
    /// The account that sends (default: the one that fits)
    #[arg(long, value_name = "ACC")]
    pub account: Option<String>,
    /// A template; beside --text it is the fallback
    #[arg(long, value_name = "NAME:LANG[:P1,P2]", value_parser = template, conflicts_with_all = ["image", "document"])]
    pub template: Option<TemplateArg>,
    /// The message as the API takes it; the other flags are laid over it. "-" reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "template", "image", "document"])]
    pub file: Option<PathBuf>,
    /// A picture
    #[arg(long, value_name = "URL", conflicts_with = "document")]
    pub image: Option<String>,
    /// A document
    #[arg(long, value_name = "URL")]
    pub document: Option<String>,
    /// Text under the picture or document
    #[arg(long)]
    pub caption: Option<String>,
    /// The message that this one answers
    #[arg(long, value_name = "MSG")]
    pub reply_to: Option<String>,
    /// The same key sends once, however often it is asked
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// All checks, nothing is sent
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Print each step until the message is read, or delivered and quiet
    #[arg(long)]
    pub wait: bool,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = duration, requires = "wait")]
    pub timeout: Duration,
}

/// `name:language:parameters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateArg {
    /// Name.
    pub name: String,
    /// Language, such as `en_US`.
    pub language: String,
    /// The body's parameters in order.
    pub params: Vec<String>,
}

/// `trunkline listen`.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Post each event here, signed by Standard Webhooks
    #[arg(long, value_name = "URL")]
    pub forward_to: Option<String>,
    /// Only these types, such as message.received or message.*
    #[arg(long, value_delimiter = ',', value_name = "TYPES")]
    pub events: Vec<String>,
    /// Begin this long ago (default: now)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub since: Option<Duration>,
    /// Print the secret that signs what is forwarded, and end
    #[arg(long)]
    pub print_secret: bool,
}

/// `trunkline tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Only what went wrong
    #[arg(long)]
    pub errors: bool,
    /// Only this channel
    #[arg(long)]
    pub channel: Option<String>,
    /// Base address of the admin listener (default: of the running `trunkline dev`, else http://127.0.0.1:9090)
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
}

/// How much of a list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// At most so many; all pages are read otherwise
    #[arg(long)]
    pub limit: Option<usize>,
}

/// One thing by id.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// Its id
    pub id: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write NAME=VALUE".to_owned()),
    }
}

fn template(text: &str) -> Result<TemplateArg, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(language)) = (parts.next(), parts.next()) else {
        return Err("write name:language or name:language:first,second".to_owned());
    };
    if name.is_empty() || language.is_empty() {
        return Err("name and language may not be empty".to_owned());
    }
    let params = parts.next().filter(|params| !params.is_empty());
    let params = params.map(|params| params.split(',').map(str::to_owned).collect()).unwrap_or_default();
    Ok(TemplateArg { name: name.to_owned(), language: language.to_owned(), params })
}

/// `500ms`, `60s`, `10m`, `2h`, `1d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write 500ms, 60s, 10m, 2h or 1d");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (count, unit) = text.split_at(unit_at);
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    count.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}
