//! The reader of the API's description works in a real browser, without any
//! network but the API itself.

use anyhow::Result;
use posthaste_show::peers::{self, Chromium};

use crate::support::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn pages_in_a_browser() -> Result<()> {
    if !peers::may_use("chromium", Chromium::missing())? {
        return Ok(());
    }
    let stage = Stage::start(&[]).await?;
    let url = format!("http://{}/docs", stage.node.api());
    let document = tokio::task::spawn_blocking(move || Chromium::document(&url)).await??;
    // None of these is in the page as it is served: the script has made them.
    for expected in ["/v1/submissions/{id}", "Idempotency-Key", "application/problem+json"] {
        assert!(document.contains(expected), "{expected} is not on the page:\n{document}");
    }
    Ok(())
}
