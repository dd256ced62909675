//! What lists show, and in which order.

use super::*;

#[tokio::test]
async fn own_sessions_come_newest_first_and_the_current_one_is_marked() {
    let logins = sessions(3);
    let world = World::with_api().await;
    world.know(&[&logins[1], &logins[0], &logins[2], &Login::new(NOW)]).await;
    let answer = world.get(&logins[1], "/sessions").await;
    let newest_first: Vec<_> = logins.iter().rev().map(|login| login.session.to_string()).collect();
    assert_eq!(ids(&answer), newest_first);
    let body = answer.json();
    let current = |n: usize| body["sessions"][n]["current"].clone();
    assert_eq!([current(0), current(1), current(2)], [false, true, false]);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-total-count"), Some("3"));
    // the same for an admin, who has no session
    let admins = world.as_admin(Method::GET, &format!("/admin/users/{}/sessions", logins[0].user)).await;
    assert_eq!(ids(&admins), newest_first);
    assert!(admins.json()["sessions"].as_array().unwrap().iter().all(|it| it["current"] == false));
}

/// Threat: token leakage. Nothing of a refresh token, nor a factor's id, is shown.
#[tokio::test]
async fn a_session_shows_what_is_known_of_it_and_no_secret() {
    let login = Login::new(NOW);
    let world = World::with_api().await;
    let mut change = recorded(&login);
    let Change::Record { record, .. } = &mut change else { unreachable!() };
    record.factor_id =
        gotrue_sidecar::session::FactorId::parse_as_gotrue("0191d1a0-0000-7000-8000-0000000000f1");
    record.previous_ref = gotrue_sidecar::session::RefreshRef::parse(&"p".repeat(43));
    record.amr = Some("totp,password".to_owned());
    record.client_id = Some("a-client".to_owned());
    record.ip = Some("203.0.113.7".to_owned());
    record.user_agent = Some("a phone \u{2713}\u{7}\"".to_owned());
    world.store.apply(&[change], NOW).await.unwrap();
    world.pass(61_000);
    world.get(&login, "/sessions").await; // seen now
    let answer = world.get(&login, "/sessions").await;
    assert_eq!(
        answer.json(),
        json!({"sessions": [{
            "id": login.session.to_string(),
            "user_id": login.user.to_string(),
            "created_at": "2027-01-15T08:00:00Z",
            "refreshed_at": "2027-01-15T08:00:00Z",
            "last_seen_at": "2027-01-15T08:01:01Z",
            "expires_at": "2027-01-15T09:00:00Z",
            "aal": "aal1",
            "amr": ["totp", "password"],
            "client_id": "a-client",
            "is_anonymous": false,
            "ip": "203.0.113.7",
            "user_agent": "a phone \u{2713}\u{7}\"",
            "current": true,
        }]})
    );
    let target = format!("/admin/sessions/{}?user_id={}", login.session, login.user);
    let one = world.as_admin(Method::GET, &target).await;
    assert_eq!((one.status.as_u16(), one.json()["id"].clone()), (200, login.session.to_string().into()));
    for answer in [answer, one] {
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        for secret in
            [reference(&login).as_str(), &"p".repeat(43), "0000000000f1", "factor", "ref", &login.refresh()]
        {
            let shown = text.replace("refreshed_at", "");
            assert!(!shown.contains(secret), "{secret} in {text}");
        }
    }
}

#[tokio::test]
async fn lists_come_in_pages_with_gotrues_headers() {
    let logins = sessions(5);
    let world = World::with_api().await;
    world.know(&logins.iter().collect::<Vec<_>>()).await;
    let expected = |from: usize, to: usize| {
        logins.iter().rev().map(|it| it.session.to_string()).skip(from).take(to - from).collect::<Vec<_>>()
    };
    for (query, (from, to), link) in [
        (
            "?per_page=2",
            (0, 2),
            r#"</sessions?page=2&per_page=2>; rel="next", </sessions?page=3&per_page=2>; rel="last""#,
        ),
        (
            "?page=2&per_page=2",
            (2, 4),
            r#"</sessions?page=3&per_page=2>; rel="next", </sessions?page=3&per_page=2>; rel="last""#,
        ),
        ("?page=3&per_page=2&apikey=canary", (4, 5), r#"</sessions?page=3&per_page=2>; rel="last""#),
        ("?page=4&per_page=2", (5, 5), r#"</sessions?page=3&per_page=2>; rel="last""#),
        ("?page=99999999999999999999", (0, 0), ""),
        ("", (0, 5), r#"</sessions?page=1>; rel="last""#),
    ] {
        let answer = world.get(&logins[0], &format!("/sessions{query}")).await;
        if link.is_empty() {
            assert_eq!(
                (answer.status.as_u16(), answer.error_code()),
                (400, Some("validation_failed")),
                "{query}"
            );
            continue;
        }
        assert_eq!((ids(&answer), answer.header("link")), (expected(from, to), Some(link)), "{query}");
        assert_eq!(answer.header("x-total-count"), Some("5"));
    }
    let user = logins[0].user;
    let admins = world.as_admin(Method::GET, &format!("/admin/users/{user}/sessions?per_page=4")).await;
    let path = format!("/admin/users/{user}/sessions");
    let link = format!(r#"<{path}?page=2&per_page=4>; rel="next", <{path}?page=2&per_page=4>; rel="last""#);
    assert_eq!(admins.header("link"), Some(link.as_str()));
}

#[tokio::test]
async fn an_admin_sees_a_banned_users_sessions() {
    let login = Login::new(NOW);
    let world = World::with_api().await;
    world.know(&[&login]).await;
    let ban = Change::Suspend { user: login.user, until: Some(NOW + 500), decided_ms: NOW * 1000 };
    world.store.apply(&[ban], NOW).await.unwrap();
    let listed = world.as_admin(Method::GET, &format!("/admin/users/{}/sessions", login.user)).await;
    assert_eq!(ids(&listed), [login.session.to_string()]);
    let target = format!("/admin/sessions/{}?user_id={}", login.session, login.user);
    assert_eq!(world.as_admin(Method::GET, &target).await.status, 200);
    assert_eq!(world.as_admin(Method::DELETE, &target).await.status, 204);
}

#[tokio::test]
async fn nobodys_sessions_are_an_empty_list() {
    let world = World::with_api().await;
    let listed =
        world.as_admin(Method::GET, &format!("/admin/users/{}/sessions", Login::new(NOW).user)).await;
    assert_eq!((listed.json(), listed.header("x-total-count")), (json!({"sessions": []}), Some("0")));
    assert_eq!(listed.header("link").map(|link| link.ends_with("?page=0>; rel=\"last\"")), Some(true));
}
