//! A configuration that cannot be used is refused before anything starts, with
//! the place and the mend; `check` and `run` say the same.

use std::{fs, process::Command};

use anyhow::Result;

use crate::support::PROGRAM;

#[test]
fn bad_config_is_explained() -> Result<()> {
    for (config, explanations) in [
        ("hostnam = \"mta.test\"\n", &["hostnam", "`hostname`"][..]),
        ("[[smtp_client]]\nehlo = \"x\"\n", &["line 2", "`ehlo_name`"]),
        ("[[api]]\nlisten = \"0.0.0.0:8025\"\n", &["api[0].listen", "token", "127.0.0.1"]),
        ("[[smtp_client]]\nconcurrency = 0\n", &["concurrency", "at least 1"]),
        ("data_dir = \n", &["line 1"]),
    ] {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("bad.toml");
        fs::write(&path, config)?;
        for verb in ["check", "run"] {
            let output = Command::new(PROGRAM)
                .arg(verb)
                .arg("--config")
                .arg(&path)
                .current_dir(dir.path())
                .output()?;
            assert!(!output.status.success(), "{verb} took {config:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            for explanation in explanations {
                assert!(said.contains(explanation), "{verb} of {config:?} said: {said}");
            }
            assert!(said.contains("bad.toml"), "{verb} of {config:?} said: {said}");
        }
        assert_eq!(fs::read_dir(dir.path())?.count(), 1, "something was started");
    }
    Ok(())
}
