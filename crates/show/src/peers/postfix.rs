//! A private Postfix: own configuration, queue and log, on a loopback port.
//!
//! Its master process must be root's and leaves its parent, so that it is
//! started and stopped by `postfix -c DIR start` and `stop`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::Certificate;
use crate::port;

const PROGRAM: &str = "/usr/sbin/postfix";

/// What it is for.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// Takes mail for any address of these domains, with STARTTLS.
    Receive(Vec<String>),
    /// Relays all mail to one server, with twenty sessions, as the other side
    /// of a comparison.
    Relay(SocketAddr),
}

/// A running Postfix; dropping it stops it.
#[derive(Debug)]
pub struct Postfix {
    dir: TempDir,
    address: SocketAddr,
}

impl Postfix {
    /// What is missing on this machine to start one.
    #[must_use]
    pub fn missing() -> Option<String> {
        if !Path::new(PROGRAM).exists() {
            return Some(format!("{PROGRAM} is not installed (Debian package postfix)"));
        }
        (!rustix::process::geteuid().is_root()).then(|| "Postfix needs root".to_owned())
    }

    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// When it does not start; the text ends with its log.
    pub async fn start(purpose: &Purpose) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("posthaste-postfix-").tempdir()?;
        let postfix = Self { dir, address: port::free()? };
        postfix.configure(purpose)?;
        postfix.control("start")?;
        let listens = port::wait(postfix.address, Duration::from_secs(20)).await;
        listens.with_context(|| format!("Postfix does not start: {}", postfix.log()))?;
        Ok(postfix)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its configuration directory, for its own tools (`MAIL_CONFIG`).
    #[must_use]
    pub fn config_dir(&self) -> PathBuf {
        self.path("etc")
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("mail.log")).unwrap_or_default()
    }

    /// The mails in its mailbox, each with the fields that it put on top.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn mails(&self) -> Result<Vec<String>> {
        let new = self.path("mail/all/new");
        if !new.exists() {
            return Ok(Vec::new());
        }
        let mut mails = Vec::new();
        for entry in fs::read_dir(new)? {
            mails.push(fs::read_to_string(entry?.path())?);
        }
        Ok(mails)
    }

    /// Waits until the mailbox holds at least `count` mails.
    ///
    /// # Errors
    /// When it does not within twenty seconds.
    pub async fn wait_for_mails(&self, count: usize) -> Result<Vec<String>> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mails = self.mails()?;
            if mails.len() >= count {
                return Ok(mails);
            }
            if Instant::now() > end {
                bail!("{} of {count} mails arrived at Postfix: {}", mails.len(), self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn control(&self, verb: &str) -> Result<()> {
        let output = Command::new(PROGRAM).arg("-c").arg(self.path("etc")).arg(verb).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("postfix {verb} failed: {said}{}", self.log());
        }
        Ok(())
    }

    fn configure(&self, purpose: &Purpose) -> Result<()> {
        // Its processes run as another user, who must reach their folders.
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["etc", "spool", "data", "mail"] {
            fs::create_dir(self.path(name))?;
        }
        let (uid, gid) = user("postfix")?;
        chown(self.path("data"), Some(uid), Some(0))?;
        chown(self.path("mail"), Some(uid), Some(gid))?;
        let certificate = Certificate::create(&self.path("etc"))?;
        let mut main = self.common_settings();
        match purpose {
            Purpose::Receive(domains) => {
                main += &self.receive_settings(domains, uid, gid, &certificate);
            }
            Purpose::Relay(next_hop) => main += &relay_settings(*next_hop),
        }
        fs::write(self.path("etc/main.cf"), main)?;
        fs::write(self.path("etc/master.cf"), services(self.address))?;
        Ok(())
    }

    fn common_settings(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "compatibility_level = 3.6\n\
             queue_directory = {dir}/spool\n\
             data_directory = {dir}/data\n\
             mail_owner = postfix\n\
             setgid_group = postdrop\n\
             myhostname = postfix.test\n\
             mydestination =\n\
             mynetworks = 127.0.0.0/8\n\
             inet_interfaces = {}\n\
             inet_protocols = ipv4\n\
             maillog_file = {dir}/mail.log\n\
             maillog_file_prefixes = {dir}\n\
             alias_maps =\n\
             alias_database =\n\
             local_recipient_maps =\n\
             smtpd_client_connection_count_limit = 0\n\
             smtpd_client_connection_rate_limit = 0\n",
            Ipv4Addr::LOCALHOST
        )
    }

    fn receive_settings(
        &self,
        domains: &[String],
        uid: u32,
        gid: u32,
        tls: &Certificate,
    ) -> String {
        format!(
            "default_transport = discard:\n\
             virtual_mailbox_domains = {}\n\
             virtual_mailbox_maps = static:all/\n\
             virtual_mailbox_base = {}\n\
             virtual_uid_maps = static:{uid}\n\
             virtual_gid_maps = static:{gid}\n\
             virtual_minimum_uid = 1\n\
             smtpd_tls_security_level = may\n\
             smtpd_tls_cert_file = {}\n\
             smtpd_tls_key_file = {}\n\
             smtpd_tls_received_header = yes\n",
            domains.join(", "),
            self.path("mail").display(),
            tls.certificate.display(),
            tls.key.display(),
        )
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Err(error) = self.control("stop") {
            eprintln!("{error:#}");
        }
    }
}

/// As fast as it goes without giving up durability: as many sessions as the
/// other side has, room for the whole run in memory, no wait for the delivery
/// side when mail comes in.
fn relay_settings(next_hop: SocketAddr) -> String {
    format!(
        "relayhost = [{}]:{}\n\
         default_destination_concurrency_limit = 20\n\
         initial_destination_concurrency = 20\n\
         qmgr_message_active_limit = 100000\n\
         qmgr_message_recipient_limit = 100000\n\
         in_flow_delay = 0\n\
         smtp_connection_cache_on_demand = yes\n\
         smtp_tls_security_level = none\n\
         smtp_dns_support_level = disabled\n",
        next_hop.ip(),
        next_hop.port()
    )
}

fn services(listen: SocketAddr) -> String {
    format!(
        "{listen} inet n - n - - smtpd\n\
         pickup unix n - n 60 1 pickup\n\
         cleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\n\
         rewrite unix - - n - - trivial-rewrite\n\
         bounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\n\
         verify unix - - n - 1 verify\n\
         flush unix n - n 1000? 0 flush\n\
         proxymap unix - - n - - proxymap\n\
         proxywrite unix - - n - 1 proxymap\n\
         smtp unix - - n - - smtp\n\
         relay unix - - n - - smtp\n\
         showq unix n - n - - showq\n\
         error unix - - n - - error\n\
         retry unix - - n - - error\n\
         discard unix - - n - - discard\n\
         local unix - n n - - local\n\
         virtual unix - n n - - virtual\n\
         anvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}

fn user(name: &str) -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.with_context(|| format!("there is no user {name}"))
}
