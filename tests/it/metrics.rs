//! The catalogue of metrics is what a scraper sees.

use std::{collections::BTreeSet, time::Duration};

use gotrue_sidecar::{
    metrics::{CATALOGUE, Format, Metrics, StoreCommand, StoreResult},
    route::Route,
};
use http::{Method, Request};
use tokio::net::TcpStream;

use crate::support::{
    http::send,
    sidecar::Sidecar,
    until,
    upstream::{Step, Upstream},
};

#[test]
fn a_scraper_sees_the_catalogue_and_nothing_else() {
    let page = Metrics::new().unwrap().render(Format::Text);
    let described: BTreeSet<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
    let expected: BTreeSet<String> = CATALOGUE
        .iter()
        .flat_map(|family| {
            let kind = family.kind.as_str();
            [format!("# HELP {} {}", family.name, family.help), format!("# TYPE {} {kind}", family.name)]
        })
        .collect();
    assert_eq!(described, expected.iter().map(String::as_str).collect());
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = series(line);
        let family = CATALOGUE.iter().find(|family| {
            ["", "_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(family.name))
        });
        assert_eq!(labels, family.expect(line).labels, "{line}");
    }
}

/// Name and labels of a sample, without the bound of a bucket. No label here has a comma in its value.
fn series(line: &str) -> (&str, Vec<&str>) {
    let (series, _) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
    (name, labels.filter(|label| *label != "le").collect())
}

#[test]
fn what_happened_is_on_the_page() {
    let metrics = Metrics::new().unwrap();
    let (took, overhead) = (Duration::from_millis(20), Duration::from_micros(70));
    metrics.request(Route::Token, &Method::POST, 200, took, Some(overhead));
    metrics.request(Route::Token, &Method::POST, 418, took, Some(overhead));
    let strange = Method::from_bytes(b"BREW").unwrap();
    metrics.request(Route::Other, &strange, 404, took, Some(overhead));
    // a pair that cannot be
    metrics.request(Route::Token, &Method::GET, 404, took, Some(overhead));
    metrics.store_command(StoreCommand::Apply, StoreResult::Ok, overhead);
    metrics.store_command(StoreCommand::Apply, StoreResult::Other, overhead);
    metrics.request_begins();
    metrics.request_begins();
    metrics.request_ends();
    metrics.upkeep();
    let page = metrics.render(Format::Text);
    for line in [
        "http_requests_total{route=\"/token\",method=\"POST\",code=\"200\"} 1",
        "http_requests_total{route=\"/token\",method=\"POST\",code=\"other\"} 1",
        "http_requests_total{route=\"other\",method=\"other\",code=\"404\"} 1",
        "http_requests_total{route=\"other\",method=\"GET\",code=\"404\"} 1",
        "http_request_duration_seconds_bucket{route=\"/token\",method=\"POST\",le=\"0.01\"} 0",
        "http_request_duration_seconds_bucket{route=\"/token\",method=\"POST\",le=\"0.025\"} 2",
        "http_request_duration_seconds_sum{route=\"/token\",method=\"POST\"} 0.04",
        "proxy_overhead_seconds_bucket{le=\"0.00005\"} 0",
        "proxy_overhead_seconds_bucket{le=\"0.0001\"} 4",
        "store_commands_total{command=\"apply\",result=\"ok\"} 1",
        "store_commands_total{command=\"apply\",result=\"other\"} 1",
        "http_requests_in_flight 1",
        "config_last_reload_successful 1",
    ] {
        let line = format!("gotrue_sidecar_{line}");
        assert!(page.lines().any(|there| there == line), "{line}");
    }
}

#[test]
fn a_failed_reload_keeps_the_time_of_the_last_good_one() {
    let metrics = Metrics::new().unwrap();
    metrics.reloaded(true, 1_700_000_000);
    metrics.reloaded(false, 1_700_000_100);
    let page = metrics.render(Format::Text);
    assert!(page.contains("\ngotrue_sidecar_config_last_reload_successful 0\n"));
    assert!(page.contains("\ngotrue_sidecar_config_last_reload_success_timestamp_seconds 1700000000\n"));
}

#[tokio::test]
async fn waiting_for_gotrue_is_no_overhead_when_the_client_leaves() {
    let upstream = Upstream::start(|_| vec![Step::Wait(Duration::from_secs(30))]).await;
    let sidecar = Sidecar::start(&["--upstream-url", &upstream.url]);
    let request = Request::get(format!("{}/settings", sidecar.url)).body(String::new()).unwrap();
    let asking = tokio::spawn(async move { send(request).await.map(|_| ()) });
    while upstream.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asking.abort();
    let left = r#"gotrue_sidecar_http_requests_total{route="/settings",method="GET",code="499"}"#;
    while sidecar.metric(left).await < 1.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(sidecar.metric("gotrue_sidecar_proxy_overhead_seconds_count").await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn tasks_are_counted_on_every_thread_and_gone_with_what_they_were_for() {
    let upstream = Upstream::start(|_| vec![Step::Close]).await;
    let sidecar = Sidecar::start(&["--upstream-url", &upstream.url]);
    let rest = sidecar.metric("gotrue_sidecar_tasks").await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(TcpStream::connect(sidecar.address).await.unwrap());
    }
    until("they are counted", async || sidecar.metric("gotrue_sidecar_tasks").await >= rest + 15.0).await;
    drop(open);
    until("they are gone", async || sidecar.metric("gotrue_sidecar_tasks").await < rest + 5.0).await;
}
