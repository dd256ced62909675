//! A client that sends HTTP/2 frames as it likes (RFC 9113 §4, §6).

use std::net::SocketAddr;

use crate::support::raw::Raw;

/// One frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

/// `GET /` of `http://a` in HPACK's static table (RFC 7541 §A); `HEADERS` has `END_HEADERS` and `END_STREAM`.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";

pub(super) struct Frames(Raw);

impl Frames {
    /// Connects with these settings (identifier, value).
    pub(super) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Raw::connect(address).await;
        raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let mut frames = Self(raw);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        frames.send(SETTINGS, 0, 0, &payload).await;
        frames
    }

    /// False when the connection has gone.
    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.0.send(frame).await
    }

    pub(super) async fn get(&mut self, stream: u32) -> bool {
        self.send(HEADERS, 5, stream, GET).await
    }

    /// The next frame; settings and pings are answered meanwhile. `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            let head = self.0.try_bytes(9).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.0.try_bytes(length).await?;
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match frame.kind {
                SETTINGS | PING if frame.flags & 1 == 0 => {
                    let payload = if frame.kind == PING { frame.payload } else { Vec::new() };
                    self.send(frame.kind, 1, 0, &payload).await;
                }
                SETTINGS | PING => {}
                _ => return Some(frame),
            }
        }
    }
}
