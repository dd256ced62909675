//! The Redis that the sidecar records sessions in, on the load's core.

use std::{io, net::SocketAddr, path::Path, process::Command, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::sleep,
};

use crate::{
    contestant::{StartError, free_address},
    process::{LOAD_CORE, Pinned, find_program},
    procfs::Family,
};

/// A Redis without persistence.
pub struct Store {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub family: Family,
    _process: Pinned,
}

const TRIES: u32 = 5_000;

impl Store {
    /// Starts it and waits for its first answer.
    pub async fn start(folder: &Path) -> Result<Self, StartError> {
        let address = free_address().await?;
        let mut command = Command::new(find_program("redis-server", "redis-server")?);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no"]);
        let mut process = Pinned::start(&command, LOAD_CORE, folder)?;
        for _ in 0..TRIES {
            if keys(address, 0).await.is_ok() {
                return Ok(Self { address, family: Family::single(process.id()), _process: process });
            }
            if process.has_ended() {
                break;
            }
            sleep(Duration::from_millis(2)).await;
        }
        Err(StartError::Ended { name: "redis-server", line: process.line().to_owned() })
    }

    /// How many keys a database holds.
    pub async fn keys(&self, database: u8) -> io::Result<u64> {
        keys(self.address, database).await
    }
}

async fn keys(address: SocketAddr, database: u8) -> io::Result<u64> {
    let mut connection = BufReader::new(TcpStream::connect(address).await?);
    let commands = format!("SELECT {database}\r\nDBSIZE\r\n");
    connection.write_all(commands.as_bytes()).await?;
    let mut answers = connection.lines();
    answers.next_line().await?;
    let size = answers.next_line().await?.unwrap_or_default();
    size.strip_prefix(':')
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("DBSIZE was answered with {size:?}")))
}
