//! Takes what a test made away from the servers that all share: a small Cassandra and a small Kafka slow down under the tables and
//! partitions of a hundred installations. Two requests in the servers' own words, so that the suite needs no drivers.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for an answer: dropping a schema flushes its tables.
const WAIT: Duration = Duration::from_secs(30);
/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

const CQL_REQUEST: u8 = 4;
const CQL_ERROR: u8 = 0;
const CQL_STARTUP: u8 = 1;
const CQL_QUERY: u8 = 7;
const CQL_QUORUM: [u8; 2] = [0, 4];
const KAFKA_DELETE_TOPICS: [u8; 4] = [0, 20, 0, 1];

/// Drops a keyspace.
///
/// # Errors
/// When the server is away or refuses.
pub fn keyspace(cassandra: &str, name: &str) -> Result<()> {
    let mut connection = open(cassandra)?;
    let startup: Vec<u8> = [&[0, 1][..], &short("CQL_VERSION"), &short("3.0.0")].concat();
    cql(&mut connection, CQL_STARTUP, &startup)?;
    let query = format!("DROP KEYSPACE IF EXISTS {name}");
    cql(&mut connection, CQL_QUERY, &[&long(query.len()), query.as_bytes(), &CQL_QUORUM, &[0]].concat())
}

/// Deletes topics. One that does not exist is no fault.
///
/// # Errors
/// When the server is away.
pub fn topics(kafka: &str, names: &[String]) -> Result<()> {
    let mut connection = open(kafka)?;
    let mut request = [&KAFKA_DELETE_TOPICS[..], &[0, 0, 0, 1], &short("tests"), &long(names.len())].concat();
    for name in names {
        request.extend(short(name));
    }
    request.extend(long(usize::try_from(WAIT.as_millis()).unwrap_or(usize::MAX)));
    connection.write_all(&[&long(request.len())[..], &request].concat())?;
    let mut length = [0; 4];
    connection.read_exact(&mut length)?;
    answer(&mut connection, length).map(drop)
}

/// A connection to the first of the servers.
fn open(servers: &str) -> Result<TcpStream> {
    let connection = TcpStream::connect(servers.split(',').next().unwrap_or(servers))?;
    connection.set_read_timeout(Some(WAIT))?;
    connection.set_write_timeout(Some(WAIT))?;
    Ok(connection)
}

fn cql(connection: &mut TcpStream, opcode: u8, body: &[u8]) -> Result<()> {
    connection.write_all(&[&[CQL_REQUEST, 0, 0, 0, opcode][..], &long(body.len()), body].concat())?;
    let mut head = [0; 9];
    connection.read_exact(&mut head)?;
    let said = answer(connection, [head[5], head[6], head[7], head[8]])?;
    if head[4] == CQL_ERROR {
        return Err(Error::other(String::from_utf8_lossy(&said).into_owned()));
    }
    Ok(())
}

fn answer(connection: &mut TcpStream, length: [u8; 4]) -> Result<Vec<u8>> {
    let length = u32::from_be_bytes(length) as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidData, "the answer is too long"));
    }
    let mut bytes = vec![0; length];
    connection.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn short(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).expect("a name is short").to_be_bytes()[..], text.as_bytes()].concat()
}

fn long(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a request is short").to_be_bytes()
}
