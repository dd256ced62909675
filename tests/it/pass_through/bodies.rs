//! Bodies: framing and bytes are kept both ways, nothing is gathered on the way.

use std::{fs, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{exchange, start};
use crate::support::{
    raw::Raw,
    sidecar::Sidecar,
    upstream::{Step, Upstream, answer},
};

#[tokio::test]
async fn a_chunked_body_stays_chunked_with_its_trailers_both_ways() {
    let (seen, got) = exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Auth-User\r\n\r\n\
         3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nX-Auth-User: mallory\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 6\r\n\r\n",
    )
    .await;
    assert_eq!(seen.header("transfer-encoding"), ["chunked"]);
    assert_eq!(seen.header("content-length"), [""; 0]);
    let body = String::from_utf8(seen.body).unwrap();
    assert_eq!(data(&body), "abcde");
    assert!(body.ends_with("0\r\nx-sum: 5\r\n\r\n"), "{body:?}");
    assert_eq!(got.header("transfer-encoding"), ["chunked"]);
    assert_eq!(data(got.text()), "hello");
    assert!(got.text().ends_with("0\r\nx-sum: 6\r\n\r\n"), "{got:?}");
}

/// The data of chunks without trailers.
fn data(mut chunked: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, rest) = chunked.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return data;
        }
        let (chunk, rest) = rest.split_at(size);
        data.push_str(chunk);
        chunked = rest.strip_prefix("\r\n").unwrap();
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_the_upstreams_connection() {
    let (_, got) = exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nhello").await;
    assert_eq!(got.header("transfer-encoding"), ["chunked"]);
    assert_eq!(data(got.text()), "hello");
}

#[tokio::test]
async fn answers_without_a_body_keep_what_they_say_of_its_length() {
    let (_, got) = exchange(
        "HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nContent-Type: a\r\n\r\n",
    )
    .await;
    assert_eq!(got.head, "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\ncontent-type: a\r\n\r\n");
    for status in ["204 No Content", "304 Not Modified"] {
        let (_, got) =
            exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &format!("HTTP/1.1 {status}\r\nETag: a\r\n\r\n"))
                .await;
        assert_eq!(got.head, format!("HTTP/1.1 {status}\r\netag: a\r\n\r\n"));
    }
}

#[tokio::test]
async fn an_empty_body_keeps_its_length() {
    let (seen, got) = exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(seen.header("content-length"), ["0"]);
    assert_eq!(got.header("content-length"), ["0"]);
    let (seen, _) = exchange("POST / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(seen.header("content-length"), [""; 0]);
    let (seen, _) = exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    )
    .await;
    assert_eq!(
        (seen.header("transfer-encoding"), seen.body.as_slice()),
        (vec!["chunked"], &b"0\r\n\r\n"[..])
    );
}

#[tokio::test]
async fn bytes_pass_as_they_come() {
    let upstream = Upstream::start(|_| {
        vec![
            Step::Send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 6\r\n\r\none"
                    .to_vec(),
            ),
            Step::Hold,
            Step::Send(b"two".to_vec()),
        ]
    })
    .await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none").await;
    upstream
        .until("the first half of the body", |all| all.iter().any(|one| one.bytes.ends_with(b"one")))
        .await;
    client.send("two").await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 6\r\n\r\none";
    assert_eq!(client.bytes(head.len()).await, head.as_bytes());
    upstream.go_on();
    assert_eq!(client.bytes(3).await, b"two");
}

const LARGE: usize = 16 * 1024 * 1024;

/// Something whose parts differ.
fn large() -> Vec<u8> {
    (0..LARGE / 4).flat_map(|number| u32::try_from(number).unwrap().to_le_bytes()).collect()
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let body = Arc::new(large());
    let sent = Arc::clone(&body);
    let upstream = Upstream::start(move |seen| {
        assert!(seen.body == *sent, "the request's body has changed");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
        vec![Step::Send(head.into_bytes()), Step::Send(seen.body.clone())]
    })
    .await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    client.send(body.as_slice()).await;
    assert!(client.answer().await.body == *body, "the answer's body has changed");
}

/// Whoever does not take bytes stops whoever sends them: what is on the way is bounded (contract I8).
#[tokio::test]
async fn only_a_bounded_part_of_a_body_is_on_its_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::start(&[&format!("--upstream-url=http://{}", listener.local_addr().unwrap())]);
    let mut client = TcpStream::connect(sidecar.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n").await.unwrap();
    let upstream = loop {
        let (mut upstream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4];
        upstream.read_exact(&mut head).await.unwrap();
        if head == *b"POST" {
            break upstream;
        }
    };
    let chunk = vec![0; 64 * 1024];
    let mut taken = 0;
    while let Ok(wrote) = tokio::time::timeout(Duration::from_millis(500), client.write(&chunk)).await {
        taken += wrote.unwrap();
        assert!(taken < socket_buffers() + 1024 * 1024, "{taken} bytes are on their way");
    }
    drop(upstream);
}

/// What two connections can hold in the kernel, which is not ours.
fn socket_buffers() -> usize {
    let most = |name: &str| -> usize {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        text.split_whitespace().last().unwrap().parse().unwrap()
    };
    2 * (most("tcp_rmem") + most("tcp_wmem"))
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_passes() {
    let upstream = Upstream::start(|_| vec![Step::Send(answer("413 X", &[], "no"))]).await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 413);
}
