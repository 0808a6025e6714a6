//! What the pages say, and that they are sound whatever they are told.

use super::*;

#[tokio::test]
async fn a_link_says_who_asks_for_what_and_offers_one_button() {
    let side = Side::start().await;
    let reply = side.get("/authorize/t0ken").await;
    assert_eq!(reply.status, 200);
    assert_page(&reply);
    let text = reply.text();
    for words in [
        "mail.example.com asks you",
        "alice@example.com",
        "Google",
        "Continue to Google",
        "at this servicealice",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(reply.body.contains("<form method=\"post\"><button type=\"submit\">"));
    let policy = reply.field("content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self' https: "), "{policy}");
    assert_eq!(side.asked(), [Asked::Open("t0ken".to_owned())]);
}

#[tokio::test]
async fn the_style_is_the_one_that_the_policy_allows() {
    use base64::Engine;
    use sha2::Digest;
    let reply = Side::start().await.get("/authorize/t0ken").await;
    let style = reply
        .body
        .split_once("<style>")
        .unwrap()
        .1
        .split_once("</style>")
        .unwrap()
        .0;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style));
    let policy = reply.field("content-security-policy").unwrap();
    assert!(policy.contains(&format!("style-src 'sha256-{hash}';")), "{policy}");
}

#[tokio::test]
async fn success_is_told_once_the_consent_is_complete() {
    let side = Side::start().await;
    let reply = side.get("/oauth/callback?code=c0de&state=s3cret").await;
    assert_eq!(reply.status, 200);
    assert_page(&reply);
    let text = reply.text();
    assert!(
        text.contains("alice@example.com is connected") && text.contains("a login to the mailbox worked"),
        "{text}"
    );
    assert!(
        reply
            .field("content-security-policy")
            .unwrap()
            .contains("form-action 'none'")
    );
}

#[tokio::test]
async fn every_way_to_fail_has_its_page_that_says_what_to_do() {
    let side = Side::start().await;
    let wrong = Problem::WrongMailbox {
        asked: "alice@example.com".to_owned(),
        given: "mallory@example.com".to_owned(),
    };
    let missing = Problem::MissingScopes(vec![
        "https://outlook.office.com/SMTP.Send".to_owned(),
        "urn:other".to_owned(),
    ]);
    let refused = Problem::LoginRefused {
        reason: "IMAP is switched off for this mailbox".to_owned(),
    };
    for (problem, status, words) in [
        (Problem::Link(LinkProblem::Forged), 404, "This link is not valid"),
        (Problem::Link(LinkProblem::Expired), 410, "This link has expired"),
        (Problem::Link(LinkProblem::Used), 410, "This link has been used"),
        (Problem::Link(LinkProblem::Internal), 500, "Something went wrong here"),
        (Problem::UnknownFlow, 400, "This sign-in cannot be completed"),
        (Problem::Denied, 403, "Permission was not given"),
        (missing.clone(), 403, "to send mail (SMTP)"),
        (missing, 403, "the permission that the provider calls urn:other"),
        (wrong.clone(), 409, "Asked foralice@example.com"),
        (wrong, 409, "Signed inmallory@example.com"),
        (refused, 403, "IMAP is switched off for this mailbox"),
        (Problem::MailboxUnreachable { is_kept: true }, 503, "it has been kept"),
        (Problem::MailboxUnreachable { is_kept: false }, 503, "has not been kept"),
        (
            Problem::ProviderTrouble,
            502,
            "The provider does not answer as it should",
        ),
        (Problem::Internal, 500, "Something went wrong here"),
    ] {
        let reply = side.outcome(problem.clone()).await;
        assert_eq!(reply.status, status, "{problem:?}");
        assert_page(&reply);
        let text = reply.text();
        assert!(
            text.contains(words) && text.contains("What you can do"),
            "{problem:?}: {text}"
        );
        assert!(!text.contains("is connected"), "no success is claimed: {text}");
        assert!(
            reply
                .field("content-security-policy")
                .unwrap()
                .contains("form-action 'none'")
        );
    }
}

#[tokio::test]
async fn a_link_that_is_no_good_is_told_at_its_page_and_at_its_button_alike() {
    let side = Side::start().await;
    for (problem, status) in [
        (LinkProblem::Forged, 404),
        (LinkProblem::Expired, 410),
        (LinkProblem::Used, 410),
        (LinkProblem::Internal, 500),
    ] {
        *side.port.opened.lock().unwrap() = Err(problem);
        *side.port.begun.lock().unwrap() = Err(problem.into());
        let (page, button) = (side.get("/authorize/t0ken").await, side.press("t0ken").await);
        assert_eq!((page.status, button.status), (status, status));
        assert_eq!(page.body, button.body);
        assert_eq!(button.field("set-cookie"), None);
        assert_sound(&page);
    }
    let asked = side.asked().len();
    assert_eq!(side.get("/authorize/%ff").await.status, 404, "no text, no link");
    assert_eq!(side.press("%ff").await.status, 404);
    assert_eq!(side.asked().len(), asked);
}

#[tokio::test]
async fn names_that_hold_markup_stay_text() {
    let side = Side::start().await;
    let hostile = "\"><script>alert(1)</script><img src=x onerror='x'>&amp;\u{202e}";
    let escaped = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img";
    *side.port.opened.lock().unwrap() = Ok(Invitation {
        account: hostile.to_owned(),
        email: Some(format!("{hostile}@example.com")),
        provider_name: hostile.to_owned(),
        provider_title: hostile.to_owned(),
    });
    *side.port.completed.lock().unwrap() = Ok(Granted {
        account: hostile.to_owned(),
        email: None,
        return_to: None,
    });
    let mut pages = vec![
        side.get("/authorize/t0ken").await,
        side.get("/oauth/callback?state=s3cret").await,
    ];
    for problem in [
        Problem::MissingScopes(vec![hostile.to_owned()]),
        Problem::WrongMailbox {
            asked: hostile.to_owned(),
            given: hostile.to_owned(),
        },
        Problem::LoginRefused {
            reason: hostile.to_owned(),
        },
    ] {
        pages.push(side.outcome(problem).await);
    }
    for page in pages {
        assert!(page.body.contains(&format!("<bdi>{escaped}")), "{}", page.body);
        for markup in ["<script", "<img", "alert(1)</script"] {
            assert!(!page.body.contains(markup), "{markup} in {}", page.body);
        }
    }
}

#[tokio::test]
async fn a_page_stays_short_whatever_it_is_told() {
    let side = Side::start().await;
    let long = "ä".repeat(100_000);
    let reply = side
        .outcome(Problem::WrongMailbox {
            asked: long.clone(),
            given: long.clone(),
        })
        .await;
    assert!(reply.body.len() < 10_000, "{}", reply.body.len());
    let reply = side.outcome(Problem::MissingScopes(vec![long; 1000])).await;
    assert!(reply.body.len() < 60_000, "{}", reply.body.len());
}
