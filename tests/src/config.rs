//! The configuration of a process under test.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::{Backend, net};

/// What the configurations of all processes of a system have in common.
pub(crate) struct Common<'a> {
    pub backend: &'a Backend,
    pub log_filter: &'a str,
    /// Share of requests that get an access line.
    pub access_log_sample: f64,
    pub tls_ca_file: &'a str,
    pub more: &'a str,
}

/// Writes the configuration of one process, and its data folder. Gives the file.
pub(crate) fn write_config(dir: &std::path::Path, name: &str, roles: &str, host: IpAddr, common: &Common<'_>) -> PathBuf {
    let Common { log_filter, access_log_sample, tls_ca_file, more, .. } = common;
    let dir = dir.display();
    let data = if name == "trunkline" { format!("{dir}/data") } else { format!("{dir}/data-{name}") };
    let config = format!(
        r#"
[node]
name = "{name}"
roles = [{roles}]
data_dir = "{data}"
[listen]
public = "{host}:0"
admin = "{host}:0"
allow_public_admin = {beyond_loopback}
[auth]
bootstrap_key_file = "{dir}/first-key"
{backend}
[telemetry]
log_format = "json"
log_filter = "{log_filter}"
access_log_sample = {access_log_sample:.1}
[webhooks]
allow_private = ["127.0.0.0/8", "{nets}"]
allow_http = true
tls_ca_file = "{tls_ca_file}"
[drain]
announce = "200ms"
requests = "5s"
router = "5s"
total = "20s"
[dev]
clock_control = true
{more}
"#,
        beyond_loopback = !host.is_loopback(),
        nets = net::ALL,
        backend = common.backend.config(),
    );
    let path = PathBuf::from(format!("{dir}/{name}.toml"));
    std::fs::write(&path, config).expect("the folder takes a file");
    std::fs::create_dir_all(&data).expect("a data folder");
    // Allows what only tests may do on this data (moving the clock).
    std::fs::write(PathBuf::from(data).join(messaging::config::FOR_TESTS_FILE), "").expect("the folder takes a file");
    path
}
