//! `posthaste send --wait` submits, shows each attempt, and its exit status says
//! whether the mail was delivered.

use anyhow::Result;

use crate::support::{PROGRAM, Stage};

#[tokio::test]
async fn send_command() -> Result<()> {
    let stage = Stage::start(&["rcpt=nobody@*:550 5.1.1 no such user"]).await?;
    let server = format!("http://{}", stage.node.api());
    for (to, works, said) in [
        ("anna@a.test", true, "delivered"),
        ("nobody@a.test", false, "no such user"),
        ("not an address", false, "/to"),
    ] {
        let mut command = tokio::process::Command::new(PROGRAM);
        command.args(["send", "--server", &server, "--from", "a@example.com", "--to", to]);
        command.args(["--subject", "Hello", "--text", "Hello.", "--wait", "--timeout", "30"]);
        let output = command.output().await?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.success(), works, "{to}: {text}");
        assert!(text.contains(said), "{to}: {text}");
    }
    Ok(())
}
