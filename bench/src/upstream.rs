//! The upstream: answers what GoTrue would, from bytes made beforehand.

use std::{borrow::Cow, net::SocketAddr, rc::Rc};

use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use crate::{
    gotrue::{Answers, Login, number_of},
    wire::{Message, Wire, WireError},
};

/// Listens on a free port of the loopback and serves until the thread's tasks end.
pub async fn serve(answers: Answers) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let upstream = Rc::new(Upstream { answers });
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
}

impl Upstream {
    async fn serve_connection(&self, stream: TcpStream) -> Result<(), WireError> {
        let mut wire = Wire::new(stream)?;
        while let Some(answer) = wire.receive(|request| self.answer(request)).await? {
            wire.send(&answer).await?;
        }
        Ok(())
    }

    fn answer(&self, request: Message<'_>) -> Cow<'_, [u8]> {
        let head = request.head;
        let answers = &self.answers;
        let [token, user] = &answers.provider;
        Cow::Borrowed(if head.starts_with(b"GET /user ") {
            &answers.user
        } else if head.starts_with(b"GET /settings ") {
            &answers.settings
        } else if head.starts_with(b"POST /token?") {
            return self.sign_in(request.body);
        } else if head.starts_with(b"POST /logout?") {
            &answers.logged_out
        } else if head.starts_with(b"GET /.well-known/jwks.json ") {
            &answers.jwks
        } else if head.starts_with(b"GET /health ") {
            &answers.health
        } else if head.starts_with(b"POST /provider/token ") {
            token
        } else if head.starts_with(b"GET /provider/user ") {
            user
        } else {
            &answers.not_found
        })
    }

    /// Ready for those that are measured; made for those that only fill a store.
    fn sign_in(&self, body: &[u8]) -> Cow<'_, [u8]> {
        let Some(number) = number_of(body) else {
            return Cow::Borrowed(&self.answers.not_found);
        };
        match self.answers.logins.get(number) {
            Some(ready) => Cow::Borrowed(ready),
            None => Cow::Owned(Login::new(number).answer()),
        }
    }
}
