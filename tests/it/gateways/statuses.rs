//! What a client gets: the table of `docs/gateways/README.md` is what was seen here.

use rustix::process::Signal;

use super::*;
use crate::support::{documents::assert_in_page, raw::Received};

/// The columns, each with how to get there.
const SITUATIONS: [&str; 6] =
    ["allowed", "no or bad token", "revoked", "store outage", "sidecar hangs", "sidecar down"];

#[tokio::test]
async fn only_the_check_lets_through_and_the_page_says_what_else_happens() {
    let mut site = Site::new(&[IN_TIME]).await;
    let gateways = site.gateways().await;
    let (allowed, revoked) = (site.sign_in().await, site.sign_in().await);
    site.sign_out(&revoked).await;

    let mut seen: Vec<Vec<Received>> = gateways.iter().map(|_| Vec::new()).collect();
    for (gateway, seen) in gateways.iter().zip(&mut seen) {
        seen.push(gateway.get("/allowed", &bearer(&allowed.access)).await);
        let without = gateway.get("/refused", "").await;
        let forged = gateway.get("/refused", &bearer(&format!("{}x", allowed.access))).await;
        assert_eq!(without.status(), forged.status(), "{}", gateway.name);
        seen.push(without);
        seen.push(gateway.get("/refused", &bearer(&revoked.access)).await);
    }
    site.redis.hang();
    for (gateway, seen) in gateways.iter().zip(&mut seen) {
        // Of a session that the check has not been asked about yet: no memory answers for Redis.
        seen.push(gateway.get_once("/refused", &bearer(&issuer::somebody().access)).await);
    }
    site.redis.go_on();
    site.sidecar.hang();
    for (gateway, seen) in gateways.iter().zip(&mut seen) {
        if gateway.gives_up {
            seen.push(gateway.get_once("/refused", &bearer(&allowed.access)).await);
        }
    }
    site.sidecar.signal(Signal::KILL);
    site.sidecar.ended().await;
    for (gateway, seen) in gateways.iter().zip(&mut seen) {
        seen.push(gateway.get_once("/refused", &bearer(&allowed.access)).await);
    }

    for (gateway, seen) in gateways.iter().zip(&seen) {
        let name = gateway.name;
        assert_eq!(gateway.app.seen().len(), 1, "{name} let somebody through:\n{}", gateway.got());
        assert_eq!(seen[0].text(), "the application", "{name}");
        assert_eq!([0, 1, 2].map(|at| seen[at].status()), [200, 401, 403], "{name}");
        assert_eq!(seen[1].header("www-authenticate").len(), 1, "{name}: {:?}", seen[1]);
        for outage in &seen[3..] {
            assert!((500..=504).contains(&outage.status()), "{name}: {outage:?}");
        }
    }
    assert_in_page("docs/gateways/README.md", "gateways", "statuses", &table(&gateways, &seen));
}

fn table(gateways: &[Gateway], seen: &[Vec<Received>]) -> String {
    let rows = gateways.iter().zip(seen).map(|(gateway, seen)| {
        let mut cells: Vec<_> = seen.iter().map(cell).collect();
        if !gateway.gives_up {
            cells.insert(4, "waits 30 s".to_owned());
        }
        format!("| {} | {} |\n", gateway.name, cells.join(" | "))
    });
    let head = format!("| gateway | {} |\n|{}\n", SITUATIONS.join(" | "), "---|".repeat(7));
    head + &rows.collect::<Vec<_>>().concat()
}

fn cell(answer: &Received) -> String {
    let retry = if answer.header("retry-after").is_empty() { "" } else { ", `Retry-After`" };
    format!("{}{retry}", answer.status())
}
