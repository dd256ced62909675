//! Carries bytes between the store and Redis, and does to them what networks and broken servers do.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// What happens to what Redis answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Nothing.
    Pass,
    /// It comes so much later.
    Delay(Duration),
    /// One byte of it comes, and the end of the connection. The command was executed.
    Cut,
    /// What Redis says without being asked (RESP3 pushes) does not come.
    LosePushes,
    /// The same, and what Redis was asked for comes so much later.
    DelayAndLosePushes(Duration),
    /// These bytes come instead, for whatever is asked. Nothing is executed.
    Say(&'static [u8]),
    /// Nothing arrives on either side, and nobody is told: the connection is half open.
    Lose,
}

/// Listens until it is dropped.
pub(crate) struct Relay {
    /// Of the relay itself.
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

struct State {
    does: Does,
    /// Where new connections lead.
    port: u16,
    connections: u64,
    /// Connections with these numbers are half open: what is sent on them gets lost.
    lost: Range<u64>,
}

impl Relay {
    /// To a Redis on this port; passes everything.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { does: Does::Pass, port, connections: 0, lost: 0..0 }));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let mut state = shared.lock().unwrap();
                let (number, port) = (state.connections, state.port);
                state.connections += 1;
                tokio::spawn(carry(here, port, number, Arc::clone(&shared)));
            }
        });
        Self { port: own, state, accepting }
    }

    /// From now on, on every connection.
    pub(crate) fn does(&self, does: Does) {
        self.state.lock().unwrap().does = does;
    }

    /// New connections lead to a Redis on this port.
    pub(crate) fn leads_to(&self, port: u16) {
        self.state.lock().unwrap().port = port;
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> u64 {
        self.state.lock().unwrap().connections
    }

    /// The connections that stand look half open from now on; new ones are well.
    pub(crate) fn swallow(&self) {
        let mut state = self.state.lock().unwrap();
        state.lost = 0..state.connections;
    }

    /// The connection that was made last looks half open from now on; the others are well.
    pub(crate) fn swallow_newest(&self) {
        let mut state = self.state.lock().unwrap();
        state.lost = state.connections - 1..state.connections;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(here: TcpStream, port: u16, number: u64, state: Arc<Mutex<State>>) {
    let Ok(there) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_client, to_client) = here.into_split();
    let (from_redis, to_redis) = there.into_split();
    let does = || {
        let state = state.lock().unwrap();
        (!state.lost.contains(&number)).then_some(state.does)
    };
    let to_client = tokio::sync::Mutex::new(to_client);
    tokio::select! {
        () = asked(from_client, to_redis, &to_client, does) => {}
        () = answered(from_redis, &to_client, does) => {}
    }
}

async fn asked(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    back: &tokio::sync::Mutex<impl AsyncWrite + Unpin>,
    does: impl Fn() -> Option<Does>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let carried = match does() {
            None | Some(Does::Lose) => Ok(()),
            Some(Does::Say(bytes)) => back.lock().await.write_all(bytes).await,
            Some(_) => to.write_all(&buffer[..read]).await,
        };
        if carried.is_err() {
            return;
        }
    }
}

async fn answered(
    mut from: impl AsyncRead + Unpin,
    to: &tokio::sync::Mutex<impl AsyncWrite + Unpin>,
    does: impl Fn() -> Option<Does>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let does = does();
        let carried = match does {
            None | Some(Does::Lose) => continue,
            Some(Does::LosePushes | Does::DelayAndLosePushes(_)) if buffer[0] == b'>' => continue,
            Some(Does::Delay(time) | Does::DelayAndLosePushes(time)) => {
                sleep(time).await;
                &buffer[..read]
            }
            Some(Does::Cut) => &buffer[..1],
            Some(Does::Pass | Does::LosePushes | Does::Say(_)) => &buffer[..read],
        };
        if to.lock().await.write_all(carried).await.is_err() || does == Some(Does::Cut) {
            return;
        }
    }
}
