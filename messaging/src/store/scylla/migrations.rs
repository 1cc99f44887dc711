//! The schema, as numbered files that are applied once and in order.
//!
//! `deploy/scylla/migrations/NNNN_name.cql` are part of the program. What was applied stands in `schema_migrations` with its
//! checksum; a file that changed afterwards is refused, because clusters would differ by when they were made. Schemas go
//! forward only: first expand, and contract two releases later, so that the programs of two releases work on one schema.
//!
//! [`apply`] may run several times at once: a lock row, taken by lightweight transaction, lets one work while the others wait and
//! find nothing left. The row expires by the servers' clock if its holder dies. Statements go one at a time, through one node
//! (the connected one with the lowest id, so that even the first tables, made before there is a lock, are made in one place),
//! and each waits until all nodes agree on the schema. After a crash the file goes on with the statement that it stopped at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{ExecutionError, RequestAttemptError};
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryResult;
use scylla::serialize::value::SerializeValue;
use scylla::statement::SerialConsistency;
use scylla::statement::unprepared::Statement;
use sha2::{Digest, Sha256};

use super::connect::{Profiles, connect};
use super::failure::Failure;
use super::node::was_applied;
use super::settings::ScyllaSettings;
use crate::BoxFuture;
use crate::ids::ID_BYTES;
use crate::store::StoreError;

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its number; the first is 1, without gaps.
    pub number: u32,
    /// Its name, without number and ending.
    pub name: &'static str,
    /// Its statements.
    pub text: &'static str,
}

/// All files, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "init", text: include_str!("../../../../deploy/scylla/migrations/0001_init.cql") },
    Migration { number: 2, name: "works", text: include_str!("../../../../deploy/scylla/migrations/0002_works.cql") },
];

/// How long a change of the schema may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Seconds until the lock of a program that died is free. Renewed before each statement.
const LOCK_SECS: i32 = 180;
/// How long to wait between two looks at another's lock, and how often.
const LOCK_WAIT: (Duration, usize) = (Duration::from_millis(250), 2400);

/// How many copies of each row are kept, and where. For a keyspace that [`apply`] makes; one that stands already keeps its own.
///
/// ScyllaDB up to 2025.3 has no lightweight transactions in keyspaces with tablets, which its newer releases make by default:
/// there, make the keyspace beforehand, `WITH ... AND tablets = {'enabled': false}`, which Cassandra does not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replication {
    /// So many in all: for tests and clusters of one node.
    Simple(u8),
    /// So many in each datacenter. Three survive the loss of a node without losing writes or service.
    PerDatacenter(BTreeMap<String, u8>),
}

impl Replication {
    fn cql(&self) -> Result<String, MigrationError> {
        let mut text = match self {
            Self::Simple(copies) => format!("{{'class': 'SimpleStrategy', 'replication_factor': {copies}"),
            Self::PerDatacenter(_) => "{'class': 'NetworkTopologyStrategy'".to_owned(),
        };
        if let Self::PerDatacenter(copies) = self {
            for (datacenter, copies) in copies {
                if datacenter.is_empty() || !datacenter.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
                    return Err(MigrationError::BadDatacenter);
                }
                let _ = write!(text, ", '{datacenter}': {copies}");
            }
        }
        text.push('}');
        Ok(text)
    }
}

/// How it stands with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not applied yet.
    Pending,
    /// So many of its statements are applied.
    Begun(u32),
    /// Applied.
    Applied,
    /// Applied, and the file is another one today.
    Changed,
    /// Applied by a newer program.
    Newer,
}

/// A file and how it stands with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// How it stands with it.
    pub state: State,
}

/// The schema was not changed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A file is not the one that was applied.
    #[error("migration {number:04}_{name} was changed after it was applied: put the file back, and write a new one for the change")]
    Changed {
        /// Its number.
        number: u32,
        /// Its name.
        name: &'static str,
    },
    /// Another has the lock, and does not end.
    #[error("another program is changing the schema; its lock ends by itself {LOCK_SECS} s after it died")]
    Locked,
    /// A name that does not stand in a statement.
    #[error("a datacenter's name has letters, digits and _-. only")]
    BadDatacenter,
    /// The keyspace is not there.
    #[error("there is no keyspace {0}: run `trunkline migrate apply`")]
    NoKeyspace(String),
    /// A statement failed.
    #[error("migration {number:04}_{name}, statement {statement}: {error}")]
    Statement {
        /// Of the file.
        number: u32,
        /// Of the file.
        name: &'static str,
        /// The first is 1.
        statement: u32,
        /// What the cluster said.
        error: String,
    },
    /// The cluster is away.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Failure> for MigrationError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure.into())
    }
}

/// How it stands with all files, the program's and the cluster's. Changes nothing.
pub fn status(settings: &ScyllaSettings) -> BoxFuture<'_, Result<Vec<MigrationStatus>, MigrationError>> {
    Box::pin(async move {
        let session = connect(settings, &Profiles::new(settings)).await?;
        Ok(compare(MIGRATIONS, &applied(&session, &settings.keyspace).await?))
    })
}

/// Makes the keyspace if it is not there (its replication is not changed if it is), and applies what is pending, in order. Gives
/// the numbers of what this call applied.
pub fn apply<'a>(settings: &'a ScyllaSettings, replication: &'a Replication) -> BoxFuture<'a, Result<Vec<u32>, MigrationError>> {
    Box::pin(bring_up(settings, replication))
}

async fn bring_up(settings: &ScyllaSettings, replication: &Replication) -> Result<Vec<u32>, MigrationError> {
    let session = connect(settings, &Profiles::new(settings)).await?;
    let worker = Worker::new(session, &settings.keyspace);
    worker.make_keyspace(replication).await?;
    // Before waiting for the lock, and again with it: most calls find nothing to do.
    if worker.pending().await?.is_empty() {
        return Ok(Vec::new());
    }
    worker.lock().await?;
    let done = worker.apply_pending().await;
    worker.unlock().await;
    done
}

/// Refuses a schema that is too old for this program; one that is newer is only worth a line in the log.
pub(super) async fn check(session: &Session, keyspace: &str) -> Result<(), StoreError> {
    let statuses = compare(MIGRATIONS, &applied(session, keyspace).await?);
    let wrong = |state: &dyn Fn(State) -> bool| statuses.iter().find(|status| state(status.state));
    if let Some(status) = wrong(&|state| matches!(state, State::Pending | State::Begun(_))) {
        let (number, name) = (status.number, &status.name);
        return Err(StoreError::Damaged(format!(
            "the schema of keyspace {keyspace} is too old, it lacks {number:04}_{name}: run `trunkline migrate apply`"
        )));
    }
    if let Some(status) = wrong(&|state| state == State::Changed) {
        tracing::warn!(keyspace, migration = status.number, "the schema was made from another file, see `trunkline migrate status`");
    }
    if let Some(status) = wrong(&|state| state == State::Newer) {
        tracing::warn!(keyspace, migration = status.number, "the schema is newer than this program");
    }
    Ok(())
}

/// What the cluster remembers of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    name: String,
    checksum: String,
    /// Statements that are applied.
    done: u32,
    finished: bool,
}

fn compare(files: &[Migration], applied: &BTreeMap<u32, Record>) -> Vec<MigrationStatus> {
    let mut statuses = Vec::new();
    for file in files {
        let state = match applied.get(&file.number) {
            None => State::Pending,
            Some(record) if record.checksum != checksum(file.text) => State::Changed,
            Some(record) if !record.finished => State::Begun(record.done),
            Some(_) => State::Applied,
        };
        statuses.push(MigrationStatus { number: file.number, name: file.name.to_owned(), state });
    }
    for (number, record) in applied {
        if files.iter().all(|file| file.number != *number) {
            statuses.push(MigrationStatus { number: *number, name: record.name.clone(), state: State::Newer });
        }
    }
    statuses
}

fn checksum(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

/// The statements of a file: each ends with a semicolon at the end of a line. Lines that begin with `--` are comments.
fn statements(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut one = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("--")) {
        let line = line.trim_end();
        let (line, last) = line.strip_suffix(';').map_or((line, false), |line| (line, true));
        one.push_str(line);
        one.push('\n');
        if last {
            all.push(std::mem::take(&mut one).trim().to_owned());
        }
    }
    assert!(one.trim().is_empty(), "a migration ends with a semicolon");
    all
}

async fn applied(session: &Session, keyspace: &str) -> Result<BTreeMap<u32, Record>, StoreError> {
    let text = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_migrations'";
    let found = query(session, text, &[&keyspace], None).await?;
    if rows_in(found)? == 0 {
        return Ok(BTreeMap::new());
    }
    let text = format!("SELECT number, name, checksum, done, finished FROM {keyspace}.schema_migrations WHERE part = 0");
    let result = query(session, &text, &[], None).await?;
    let unreadable = || StoreError::Damaged(format!("{keyspace}.schema_migrations is not of the form that this program writes"));
    let rows = result.into_rows_result().map_err(|_| unreadable())?;
    let mut records = BTreeMap::new();
    for row in rows.rows::<(i32, String, String, i32, bool)>().map_err(|_| unreadable())? {
        let (number, name, checksum, done, finished) = row.map_err(|_| unreadable())?;
        let number = u32::try_from(number).map_err(|_| unreadable())?;
        let done = u32::try_from(done).map_err(|_| unreadable())?;
        records.insert(number, Record { name, checksum, done, finished });
    }
    Ok(records)
}

fn rows_in(result: QueryResult) -> Result<usize, StoreError> {
    let rows = result.into_rows_result().map_err(|_| StoreError::Damaged("an answer of the cluster could not be read".to_owned()))?;
    Ok(rows.rows_num())
}

/// Values of whatever types: the driver is compiled once for all of them.
type Values<'a> = &'a [&'a (dyn SerializeValue + Sync)];

async fn query(
    session: &Session,
    text: &str,
    values: Values<'_>,
    node: Option<&Arc<dyn scylla::policies::load_balancing::LoadBalancingPolicy>>,
) -> Result<QueryResult, Failure> {
    let mut statement = Statement::new(text);
    statement.set_request_timeout(Some(CHANGE_TIMEOUT));
    statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
    statement.set_load_balancing_policy(node.cloned());
    match session.query_unpaged(statement, values).await {
        Ok(result) => Ok(result),
        // What the server says is worth more here than anywhere else, and there is nobody's data in it.
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, text))) => Err(Failure::away(format!("{error}: {text}"))),
        Err(error) => Err(error.into()),
    }
}

/// Changes the schema.
struct Worker<'a> {
    session: Session,
    keyspace: &'a str,
    /// Through which all changes go.
    node: Option<Arc<dyn scylla::policies::load_balancing::LoadBalancingPolicy>>,
    /// Who we are, in the lock.
    owner: [u8; ID_BYTES],
}

impl<'a> Worker<'a> {
    fn new(session: Session, keyspace: &'a str) -> Self {
        let cluster = session.get_cluster_state();
        let nodes = cluster.get_nodes_info().iter().filter(|node| node.is_connected());
        let node = nodes.min_by_key(|node| node.host_id);
        let node = node.map(|node| SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node.clone()), None));
        let mut owner = [0; ID_BYTES];
        crate::seal::fill_random(&mut owner);
        Self { session, keyspace, node, owner }
    }

    async fn change(&self, text: &str) -> Result<(), Failure> {
        query(&self.session, text, &[], self.node.as_ref()).await?;
        self.session.await_schema_agreement().await.map_err(|error| Failure::away(format!("nodes do not agree on the schema: {error}")))?;
        Ok(())
    }

    async fn make_keyspace(&self, replication: &Replication) -> Result<(), MigrationError> {
        let keyspace = self.keyspace;
        let replication = replication.cql()?;
        // Without asking what is there: servers show a table in `system_schema` before they answer for it, and they make one
        // after the other.
        self.change(&format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}")).await?;
        for (table, columns) in [
            ("schema_lock", "name text PRIMARY KEY, owner blob"),
            ("schema_migrations", "part int, number int, name text, checksum text, done int, finished boolean, PRIMARY KEY (part, number)"),
        ] {
            self.change(&format!("CREATE TABLE IF NOT EXISTS {keyspace}.{table} ({columns})")).await?;
        }
        Ok(())
    }

    /// The files that are not applied, each with its number of statements that are.
    async fn pending(&self) -> Result<Vec<(&'static Migration, u32)>, MigrationError> {
        let mut pending = Vec::new();
        for (file, status) in MIGRATIONS.iter().zip(compare(MIGRATIONS, &applied(&self.session, self.keyspace).await?)) {
            match status.state {
                State::Pending => pending.push((file, 0)),
                State::Begun(done) => pending.push((file, done)),
                State::Changed => return Err(MigrationError::Changed { number: file.number, name: file.name }),
                State::Applied | State::Newer => {}
            }
        }
        Ok(pending)
    }

    async fn lock(&self) -> Result<(), MigrationError> {
        let (wait, tries) = LOCK_WAIT;
        for _ in 0..tries {
            let text = format!("INSERT INTO {}.schema_lock (name, owner) VALUES ('schema', ?) IF NOT EXISTS USING TTL ?", self.keyspace);
            match query(&self.session, &text, &[&&self.owner[..], &LOCK_SECS], None).await.and_then(was_applied) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // Not answered in time: it may be ours. Renewing says so.
                Err(_) if self.renew().await? => return Ok(()),
                Err(_) => {}
            }
            tokio::time::sleep(wait).await;
        }
        Err(MigrationError::Locked)
    }

    /// `false` when the lock is not ours.
    async fn renew(&self) -> Result<bool, MigrationError> {
        let text = format!("UPDATE {}.schema_lock USING TTL ? SET owner = ? WHERE name = 'schema' IF owner = ?", self.keyspace);
        let result = query(&self.session, &text, &[&LOCK_SECS, &&self.owner[..], &&self.owner[..]], None).await?;
        Ok(was_applied(result)?)
    }

    async fn unlock(&self) {
        let text = format!("DELETE FROM {}.schema_lock WHERE name = 'schema' IF owner = ?", self.keyspace);
        if let Err(failure) = query(&self.session, &text, &[&&self.owner[..]], None).await {
            tracing::warn!(error = %StoreError::from(failure), "the schema's lock was not given back, it ends by itself");
        }
    }

    async fn apply_pending(&self) -> Result<Vec<u32>, MigrationError> {
        let mut applied = Vec::new();
        for (file, done) in self.pending().await? {
            self.apply_file(file, done).await?;
            applied.push(file.number);
        }
        Ok(applied)
    }

    async fn apply_file(&self, file: &Migration, done: u32) -> Result<(), MigrationError> {
        let all = statements(file.text);
        for (n, text) in (1..).zip(&all).skip(done as usize) {
            if !self.renew().await? {
                return Err(MigrationError::Locked);
            }
            let failed = |error: StoreError| MigrationError::Statement {
                number: file.number,
                name: file.name,
                statement: n,
                error: error.to_string(),
            };
            let text = qualified(text, self.keyspace);
            self.change(&text).await.map_err(|failure| failed(failure.into()))?;
            self.note(file, n, n as usize == all.len()).await?;
            tracing::info!(migration = file.number, statement = n, of = all.len(), "schema changed");
        }
        Ok(())
    }

    async fn note(&self, file: &Migration, done: u32, finished: bool) -> Result<(), Failure> {
        let keyspace = self.keyspace;
        let columns = "part, number, name, checksum, done, finished";
        let text = format!("INSERT INTO {keyspace}.schema_migrations ({columns}) VALUES (0, ?, ?, ?, ?, ?)");
        let number = |n: u32| i32::try_from(n).expect("files and statements are few");
        let values: Values<'_> = &[&number(file.number), &file.name, &checksum(file.text), &number(done), &finished];
        query(&self.session, &text, values, None).await?;
        Ok(())
    }
}

/// A statement with its table in a keyspace. Statements of migrations begin in one of a few ways.
fn qualified(text: &str, keyspace: &str) -> String {
    for start in ["CREATE TABLE IF NOT EXISTS ", "ALTER TABLE ", "DROP TABLE IF EXISTS "] {
        if let Some(rest) = text.strip_prefix(start) {
            return format!("{start}{keyspace}.{rest}");
        }
    }
    unreachable!("the tests look at every statement")
}

#[cfg(test)]
mod tests {
    use super::super::keys::Table;
    use super::*;

    #[test]
    fn files_are_numbered_without_gaps_and_hold_statements() {
        for (number, file) in (1..).zip(MIGRATIONS) {
            assert_eq!(file.number, number);
            let all = statements(file.text);
            assert!(!all.is_empty());
            for text in all {
                assert!(qualified(&text, "ks").contains(" ks."), "{text}");
                assert!(!text.contains(';'), "{text}");
            }
        }
    }

    #[test]
    fn every_table_has_its_columns_in_the_schema() {
        let all: Vec<String> = MIGRATIONS.iter().flat_map(|file| statements(file.text)).collect();
        for table in Table::ALL {
            let start = format!("CREATE TABLE IF NOT EXISTS {} (", table.name());
            let text = all.iter().find(|text| text.starts_with(&start)).unwrap_or_else(|| panic!("{table:?} has a table"));
            let (partition, clustering) = table.columns().split_at(table.partition_columns());
            let partition = partition.join(", ");
            let partition = if table.partition_columns() > 1 { format!("({partition})") } else { partition };
            let key = [&[&*partition][..], clustering].concat().join(", ");
            assert!(text.contains(&format!("PRIMARY KEY ({key})")), "{table:?}: {text}");
            assert_eq!(text.contains("\n    v blob,"), table.has_value(), "{table:?}");
        }
    }

    #[test]
    fn states_follow_from_what_was_applied() {
        let files = [Migration { number: 1, name: "one", text: "A;" }, Migration { number: 2, name: "two", text: "B;" }];
        let record = |text: &str, finished| Record { name: "x".to_owned(), checksum: checksum(text), done: 1, finished };
        for (applied, expected) in [
            (vec![], vec![State::Pending, State::Pending]),
            (vec![(1, record("A;", true))], vec![State::Applied, State::Pending]),
            (vec![(1, record("A;", true)), (2, record("B;", false))], vec![State::Applied, State::Begun(1)]),
            (vec![(1, record("a;", true)), (2, record("B;", true))], vec![State::Changed, State::Applied]),
            (
                vec![(1, record("A;", true)), (2, record("B;", true)), (3, record("C;", true))],
                vec![State::Applied, State::Applied, State::Newer],
            ),
        ] {
            let found = compare(&files, &applied.into_iter().collect());
            assert_eq!(found.iter().map(|status| status.state).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn replication_is_written_as_cql() {
        let places = |name: &str| Replication::PerDatacenter([(name.to_owned(), 3)].into());
        assert_eq!(Replication::Simple(1).cql().unwrap(), "{'class': 'SimpleStrategy', 'replication_factor': 1}");
        assert_eq!(places("eu-1").cql().unwrap(), "{'class': 'NetworkTopologyStrategy', 'eu-1': 3}");
        assert!(places("eu'; DROP").cql().is_err());
    }
}
