//! What costs a client little and a server much, frame by frame: it ends its own connection, and nothing else.

use super::{frames::Frames, *};

/// A client that was not part of it is served, and nothing of the flood is left over.
async fn assert_goes_on(sidecar: &Sidecar) {
    let got = Client::connect(sidecar).await.get("/").await.unwrap();
    assert_eq!(text(got).await, "hello");
    assert!(sidecar.metric("gotrue_sidecar_http_requests_in_flight").await < 0.5);
}

/// "HTTP/2 rapid reset" (CVE-2023-44487): one client's storm ends its connection, and nothing else.
#[tokio::test]
async fn a_storm_of_resets_ends_its_own_connection() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &[]);
    let mut storm = Frames::connect(sidecar.address, &[]).await;
    for number in 0..20_000 {
        let stream = number * 2 + 1;
        let sent = storm.get(stream).await && storm.send(frames::RST_STREAM, 0, stream, &[0, 0, 0, 8]).await;
        if !sent {
            break;
        }
    }
    let mut goaway = false;
    while let Some(frame) = storm.next().await {
        goaway |= frame.kind == frames::GOAWAY;
    }
    assert!(goaway, "the storm is told to stop");
    assert_goes_on(&sidecar).await;
}

/// A head without an end, in frames that are each small (CVE-2024-27316 and its kind).
#[tokio::test]
async fn a_head_that_goes_on_for_ever_ends_its_connection() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &[]);
    // a literal field that is not indexed: x: aaaa…; and fields that take no room at all
    let long = [&b"\x00\x01x\x7f\x00"[..], &[b'a'; 127]].concat();
    for (what, payload) in [("fields", long.as_slice()), ("nothing", b"")] {
        let mut flood = Frames::connect(sidecar.address, &[]).await;
        assert!(flood.send(frames::HEADERS, 0, 1, b"\x82\x86\x84\x41\x01a").await); // no END_HEADERS
        let mut sent = 0;
        while sent < MOST && flood.send(frames::CONTINUATION, 0, 1, payload).await {
            sent += 1;
        }
        assert!(sent < MOST, "{what}: the sidecar reads on after {sent} frames");
    }
    assert!(upstream.connections().is_empty());
    assert_goes_on(&sidecar).await;
}

/// More frames than sockets hold in both directions.
const MOST: usize = 2_000_000;
