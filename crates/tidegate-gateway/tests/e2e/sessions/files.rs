//! Sessions in a sealed file: a restart logs nobody out.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::join_all;
use serde_json::json;
use tidegate::{
    Secret,
    token::{
        Grant, GrantError, Identity, Login, MemorySessions, SessionId, Settings, TokenCoordinator, Tokens,
    },
};
use tidegate_gateway::oidc::session::KeyRing;

use super::*;
use crate::support::eventually;

fn key(byte: u8) -> String {
    STANDARD.encode((byte..byte + 32).collect::<Vec<u8>>())
}

/// A place for a file that outlives gateways.
struct Place {
    _directory: tempfile::TempDir,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sessions.sealed");
        Self { _directory: directory, file }
    }

    /// A gateway whose sessions stand in the file, sealed with these keys.
    async fn gateway(&self, behind: &Behind, idp: &Idp, keys: &[u8]) -> Gateway {
        self.is_free().await;
        Gateway::start_with(|directory| self.config(directory, behind, idp, keys)).await
    }

    fn config(&self, directory: &Path, behind: &Behind, idp: &Idp, keys: &[u8]) -> String {
        fs::write(directory.join("secret"), SECRET).unwrap();
        let mut named = Vec::new();
        for byte in keys {
            fs::write(directory.join(format!("{byte}.key")), key(*byte)).unwrap();
            named.push(format!("{{ file: {byte}.key }}"));
        }
        let settings = format!("file: {}", self.file.display());
        let config = config(behind, idp.issuer(), &settings, "memory://");
        config.replace("{ file: session.key }", &named.join(", "))
    }

    /// Waits until nobody writes it any more.
    async fn is_free(&self) {
        let lock = self.file.with_extension("lock");
        eventually("the file's last writer being gone", async || {
            fs::File::open(&lock).map_or(true, |lock| lock.try_lock().is_ok())
        })
        .await;
    }

    /// What a gateway says that does not start.
    fn refused(&self, behind: &Behind, idp: &Idp, keys: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let config = self.config(directory.path(), behind, idp, keys);
        let file = directory.path().join("tidegate.yaml");
        fs::write(&file, format!("listen: {{ http: 127.0.0.1:0, admin: 127.0.0.1:0 }}\n{config}")).unwrap();
        let mut command = crate::support::gateway::command();
        let output = command.args(["serve", "--config"]).arg(&file).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

async fn is_in(browser: &Browser, gateway: &Gateway) -> bool {
    browser.clone().fetches(gateway, "/").await.status == StatusCode::OK
}

#[tokio::test]
async fn a_restart_with_thousands_of_sessions_is_no_wave_of_logins() {
    let sessions = sessions();
    let (idp, behind, place) = (Idp::start().await, Behind::start().await, Place::new());
    let values: Vec<String> = (0..sessions).map(|n| format!("{n:043}")).collect();
    let ring = KeyRing::new(&[Secret::new(key(1))]).unwrap();
    seed(&place, &idp, &values, Arc::new(ring)).await;
    for served in [sessions, sessions / 10] {
        let gateway = place.gateway(&behind, &idp, &[1]).await;
        let started = behind.upstream.calls();
        let calls = values[..served].chunks(served / 20).map(|values| {
            let addr = gateway.http();
            async move {
                let mut connection = client::http1(addr).await;
                for value in values {
                    let request = client::request("GET", "/").header("cookie", format!("tidegate={value}"));
                    let answer =
                        connection.send_request(request.body(client::empty()).unwrap()).await.unwrap();
                    assert_eq!(answer.status(), StatusCode::OK);
                    Answer::read(answer).await.unwrap();
                }
            }
        });
        join_all(calls).await;
        assert_eq!(behind.upstream.calls() - started, served);
        let state = gateway.state().await;
        let session = &state["sessions"][0];
        assert_eq!((&session["kept"], &session["sessions"]), (&"file".into(), &served.into()));
        assert_eq!(session["refreshes"], json!({}), "nobody needs another token");
        // As a machine that loses its power.
        gateway.kill();
    }
    assert_eq!((idp.counts().asked, idp.counts().keys), (0, 0));
}

/// How many: 2000, or what `TIDEGATE_TEST_SESSIONS` says, like 10000.
fn sessions() -> usize {
    let wanted = std::env::var("TIDEGATE_TEST_SESSIONS").ok();
    wanted.map_or(2000, |wanted| wanted.parse().expect("a number of sessions, at least 200"))
}

/// Puts sessions into the file as a gateway does.
async fn seed(place: &Place, idp: &Idp, values: &[String], ring: Arc<KeyRing>) {
    let ask = |_: Grant, _: Duration| async { Err::<Tokens, _>(GrantError::Scope) };
    let settings = Settings { seal: Some(Arc::clone(&ring) as _), ..Settings::default() };
    let store = MemorySessions::on_disk(&place.file, ring).unwrap();
    let coordinator = TokenCoordinator::new(ask, store, settings).unwrap();
    for values in values.chunks(1000) {
        let all = values.iter().map(|value| {
            let hash = digest(&SHA256, format!("idp\0{value}").as_bytes());
            let id = SessionId::of_hash(hash.as_ref().try_into().unwrap());
            let tokens =
                Tokens::bearer(format!("at-{value}")).expires_in(Duration::from_secs(3600)).refresh("rt");
            let identity = Some(Identity { issuer: idp.issuer().into(), subject: "ann".into() });
            let login = Login { identity, attributes: r#"{"sub":"ann"}"#.into(), ..Login::of(tokens) };
            let coordinator = &coordinator;
            async move { assert!(coordinator.begin(&id, login).await.unwrap()) }
        });
        join_all(all).await;
    }
}

#[tokio::test]
async fn what_was_ended_stays_so_over_a_restart_and_what_was_not_can_still_be_ended_by_the_provider() {
    let (idp, behind, place) = (Idp::start().await, Behind::start().await, Place::new());
    let mut first = place.gateway(&behind, &idp, &[1]).await;
    let mut browsers = Vec::new();
    for login in ["login-1", "login-2", "login-3"] {
        idp.claims(json!({ "sid": login }));
        let mut browser = Browser::default();
        assert_eq!(browser.logs_in(&first, "/").await.status, StatusCode::OK);
        browsers.push(browser);
    }
    let [stays, left, ended] = [0, 1, 2].map(|n| browsers[n].clone());
    left.clone().goes(&first, "/oauth2/logout").await;
    assert!(first.drain().await.success());
    let second = place.gateway(&behind, &idp, &[1]).await;
    assert!(is_in(&stays, &second).await && is_in(&ended, &second).await && !is_in(&left, &second).await);
    let issuer: String = url::form_urlencoded::byte_serialize(idp.issuer().as_bytes()).collect();
    let page = format!("/oauth2/logout/frontchannel?iss={issuer}&sid=login-3");
    assert_eq!(client::get(second.http(), &page).await.status, StatusCode::OK);
    assert!(is_in(&stays, &second).await && !is_in(&ended, &second).await);
    assert_eq!((idp.counts().granted, idp.counts().reused), (3, 0));
    let bytes = fs::read(&place.file).unwrap();
    for secret in secrets(&idp, &[&stays, &left, &ended]) {
        assert!(
            !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "a secret is in the file"
        );
    }
}

#[tokio::test]
async fn a_key_takes_another_ones_place_and_nobody_is_logged_out() {
    let (idp, behind, place) = (Idp::start().await, Behind::start().await, Place::new());
    let mut browser = Browser::default();
    let gateway = place.gateway(&behind, &idp, &[1]).await;
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
    // Both for a while, by a reload.
    gateway.write(&place.config(gateway.directory(), &behind, &idp, &[2, 1]));
    gateway.state_is("the reload", |state| state["config"]["reloads"] == 1).await;
    assert!(is_in(&browser, &gateway).await);
    let mut late = Browser::default();
    assert_eq!(late.logs_in(&gateway, "/").await.status, StatusCode::OK);
    gateway.kill();
    let gateway = place.gateway(&behind, &idp, &[2, 1]).await;
    assert!(is_in(&browser, &gateway).await && is_in(&late, &gateway).await);
    gateway.kill();
    // Sessions that the new key sealed need the old one no more; the file itself is sealed by the new one as well.
    let gateway = place.gateway(&behind, &idp, &[2]).await;
    assert!(is_in(&late, &gateway).await);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named_and_left_as_it_is() {
    let (idp, behind, place) = (Idp::start().await, Behind::start().await, Place::new());
    let mut browser = Browser::default();
    let mut gateway = place.gateway(&behind, &idp, &[1]).await;
    let taken = place.refused(&behind, &idp, &[1]);
    assert!(taken.contains("belongs to another process"), "{taken}");
    assert_eq!(browser.logs_in(&gateway, "/").await.status, StatusCode::OK);
    assert!(gateway.drain().await.success());
    place.is_free().await;
    let good = fs::read(&place.file).unwrap();
    let name = place.file.display().to_string();
    let said = place.refused(&behind, &idp, &[3]);
    assert!(said.contains(&name) && said.contains("keep the key that sealed it in the ring"), "{said}");
    assert_eq!(fs::read(&place.file).unwrap(), good, "nothing is lost by a wrong key");
    let mut corrupt = good.clone();
    corrupt[60] ^= 1;
    for (bytes, why) in [
        (&corrupt[..], "cannot be opened with any key"),
        (b"something else entirely, not ours", "not a file of sessions"),
    ] {
        fs::write(&place.file, bytes).unwrap();
        let said = place.refused(&behind, &idp, &[1]);
        assert!(said.contains(&name) && said.contains(why), "{said}");
        assert_eq!(fs::read(&place.file).unwrap(), bytes);
    }
    // What a crash left in the middle of a write is cut off.
    fs::write(&place.file, [&good[..], &[0, 0, 1, 0, 7]].concat()).unwrap();
    let gateway = place.gateway(&behind, &idp, &[1]).await;
    assert!(is_in(&browser, &gateway).await);
}
