//! The device flow: shows the code, and asks the daemon until the owner has decided.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::Refusal;
use super::report::Report;
use crate::admin::client::{Answer, Client, ClientError, segment};
use crate::admin::types::{AccountView, AuthorizationOutcome, DeviceFlowView, FlowName, FlowStage, FlowView};
use crate::cli::Failure;
use crate::cli::output::wait;

/// Runs the device flow at `path`, of `account`.
///
/// # Errors
/// Why the mailbox is not open.
pub(super) async fn run(
    client: &Client,
    path: &str,
    account: &str,
    report: &Report,
) -> Result<AuthorizationOutcome, Refusal> {
    let body = json!({"flow": "device"});
    let begun = wait("waiting for the daemon", client.create::<DeviceFlowView>(path, &body)).await?;
    report.show_code(&begun.value)?;
    wait("waiting for the code to be typed", settled(client, path)).await?;
    let path = format!("/v1/account/{}", segment(account));
    let view: Result<Answer<AccountView>, ClientError> = client.read(&path, &[]).await;
    let view = view?.value;
    Ok(AuthorizationOutcome {
        account: view.account,
        state: view.state,
    })
}

/// Waits until the flow is done.
async fn settled(client: &Client, path: &str) -> Result<(), Refusal> {
    loop {
        sleep(POLL_INTERVAL).await;
        let progress: Answer<FlowView> = client.read(path, &[]).await?;
        let FlowView { flow, state, error } = progress.value;
        if flow != FlowName::Device {
            return Err(Failure::failed("another authorization was begun instead of this one").into());
        }
        match (state, error) {
            (FlowStage::Pending, _) => {}
            (FlowStage::Done, _) => return Ok(()),
            (FlowStage::Failed, Some(error)) => {
                return Err(Refusal::Told {
                    code: error.code,
                    message: error.message,
                });
            }
            (FlowStage::Failed, None) => return Err(Failure::failed("the authorization failed").into()),
        }
    }
}

/// How often the daemon is asked. It answers at once, and whoever typed the code looks at this.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
