//! The upstream: answers what GoTrue would, from bytes made beforehand.

use std::{cell::Cell, net::SocketAddr, rc::Rc};

use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use crate::{
    gotrue::Answers,
    wire::{Message, Wire, WireError},
};

/// Listens on a free port of the loopback and serves until the thread's tasks end.
pub async fn serve(answers: Answers) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let upstream = Rc::new(Upstream { answers, turn: Cell::new(0) });
    spawn_local(async move {
        // an accept that fails shows as failed requests, which end the run
        while let Ok((stream, _)) = listener.accept().await {
            let upstream = upstream.clone();
            spawn_local(async move { upstream.serve_connection(stream).await });
        }
    });
    Ok(address)
}

struct Upstream {
    answers: Answers,
    turn: Cell<usize>,
}

impl Upstream {
    async fn serve_connection(&self, stream: TcpStream) -> Result<(), WireError> {
        let mut wire = Wire::new(stream)?;
        while let Some(answer) = wire.receive(|request| self.answer(request)).await? {
            wire.send(answer).await?;
        }
        Ok(())
    }

    fn answer(&self, request: Message<'_>) -> &[u8] {
        let head = request.head;
        let answers = &self.answers;
        if head.starts_with(b"GET /user ") {
            &answers.user
        } else if head.starts_with(b"GET /settings ") {
            &answers.settings
        } else if head.starts_with(b"POST /token?") {
            self.next_login()
        } else if head.starts_with(b"GET /.well-known/jwks.json ") {
            &answers.jwks
        } else if head.starts_with(b"GET /health ") {
            &answers.health
        } else {
            &answers.not_found
        }
    }

    fn next_login(&self) -> &[u8] {
        let turn = self.turn.get();
        let logins = &self.answers.logins;
        self.turn.set((turn + 1) % logins.len().max(1));
        logins.get(turn).unwrap_or(&self.answers.not_found)
    }
}
