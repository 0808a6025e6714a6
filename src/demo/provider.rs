//! The demo's OAuth2 provider: one app, one user, refresh tokens that rotate (RFC 6749 §6), answers as real ones give them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Form, Json, Router};
use rand::RngCore;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The provider's state.
pub(super) struct Provider {
    user: String,
    client_id: String,
    client_secret: String,
    grant: Mutex<Grant>,
    refreshes: AtomicU64,
}

/// What the provider has issued for its one user.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) refresh_token: String,
    pub(super) access_token: String,
    access_token_expired: bool,
}

/// The body of a token request.
#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    refresh_token: String,
    client_id: String,
    client_secret: String,
}

impl Provider {
    /// A provider whose user's access token has expired already.
    pub(super) fn new(user: &str) -> Self {
        let grant = Grant {
            refresh_token: random(),
            access_token: random(),
            access_token_expired: true,
        };
        Self {
            user: user.to_owned(),
            client_id: "portreeve-demo".to_owned(),
            client_secret: random(),
            grant: Mutex::new(grant),
            refreshes: AtomicU64::new(0),
        }
    }

    /// The id and the secret of the app that may refresh.
    pub(super) fn app(&self) -> (&str, &str) {
        (&self.client_id, &self.client_secret)
    }

    /// The grant as the user's consent once gave it.
    pub(super) fn expired_grant(&self) -> Grant {
        self.lock().clone()
    }

    /// How often the grant has been refreshed.
    pub(super) fn refreshes(&self) -> u64 {
        self.refreshes.load(Ordering::Relaxed)
    }

    /// Whether the mailbox may let `user` in with `access_token`.
    pub(super) fn admits(&self, user: &str, access_token: &str) -> bool {
        let grant = self.lock();
        user == self.user && access_token == grant.access_token && !grant.access_token_expired
    }

    /// Serves the token endpoint on a free loopback port.
    pub(super) async fn serve(self: Arc<Self>) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/token", post(token)).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(address)
    }

    fn refresh(&self, request: &TokenRequest) -> Result<Grant, &'static str> {
        if request.client_id != self.client_id || request.client_secret != self.client_secret {
            return Err("invalid_client");
        }
        if request.grant_type != "refresh_token" {
            return Err("unsupported_grant_type");
        }
        let mut grant = self.lock();
        if request.refresh_token != grant.refresh_token {
            return Err("invalid_grant");
        }
        *grant = Grant {
            refresh_token: random(),
            access_token: random(),
            access_token_expired: false,
        };
        self.refreshes.fetch_add(1, Ordering::Relaxed);
        Ok(grant.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Grant> {
        self.grant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn token(State(provider): State<Arc<Provider>>, Form(request): Form<TokenRequest>) -> (StatusCode, Json<Value>) {
    match provider.refresh(&request) {
        Ok(grant) => {
            let answer = json!({
                "access_token": grant.access_token,
                "refresh_token": grant.refresh_token,
                "token_type": "Bearer",
                "expires_in": 3600,
            });
            (StatusCode::OK, Json(answer))
        }
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))),
    }
}

fn random() -> String {
    let mut bytes = [0; 24];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
