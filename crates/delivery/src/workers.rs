//! The owner's book of its workers: who has which message, and who keeps a
//! session of which site.
//!
//! There are never more workers than the total limit. A message goes to an
//! idle worker of its site, else to a new one, else to the one that has been
//! idle for longest, which gives up its session for it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
};

use crate::{
    client::Client,
    job::Job,
    worker::{Report, Worker, WorkerId},
};

enum State {
    Idle { site: Arc<str>, since: u64 },
    Busy(Arc<Job>),
}

struct Entry {
    jobs: mpsc::Sender<Arc<Job>>,
    state: State,
    task: Id,
}

pub(crate) struct Workers {
    client: Arc<Client>,
    reports: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    by_id: HashMap<WorkerId, Entry>,
    by_task: HashMap<Id, WorkerId>,
    idle_by_site: HashMap<Arc<str>, Vec<WorkerId>>,
    /// Idle workers, longest idle first.
    idle: BTreeMap<u64, WorkerId>,
    counter: u64,
}

impl Workers {
    pub fn new(client: Arc<Client>, reports: mpsc::Sender<Report>) -> Self {
        Self {
            client,
            reports,
            tasks: JoinSet::new(),
            by_id: HashMap::new(),
            by_task: HashMap::new(),
            idle_by_site: HashMap::new(),
            idle: BTreeMap::new(),
            counter: 0,
        }
    }

    /// Tasks that have not ended, idle ones and those on their way out too.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Gives a message to a worker.
    pub fn give(&mut self, mut job: Arc<Job>, site: Option<&Arc<str>>) {
        while let Some(id) = self.take_idle(site) {
            let Some(entry) = self.by_id.get_mut(&id) else { continue };
            match entry.jobs.try_send(job.clone()) {
                Ok(()) => {
                    entry.state = State::Busy(job);
                    return;
                }
                // It has just ended; `ended` hears of it.
                Err(error) => job = error.into_inner(),
            }
            self.by_id.remove(&id);
        }
        self.spawn(job);
    }

    fn take_idle(&mut self, site: Option<&Arc<str>>) -> Option<WorkerId> {
        let of_site = site.and_then(|site| self.idle_by_site.get(site)?.last().copied());
        let limit = self.client.config.total_concurrency.max(1) as usize;
        let id = match of_site {
            Some(id) => id,
            None if self.by_id.len() < limit => return None,
            None => *self.idle.first_key_value()?.1,
        };
        self.unlist(id);
        Some(id)
    }

    fn spawn(&mut self, job: Arc<Job>) {
        self.counter += 1;
        let id = self.counter;
        let (jobs, receiver) = mpsc::channel(1);
        let worker = Worker {
            id,
            client: self.client.clone(),
            jobs: receiver,
            reports: self.reports.clone(),
        };
        // There is room for one, and it is the first.
        if jobs.try_send(job.clone()).is_ok() {
            let task = self.tasks.spawn(worker.run()).id();
            self.by_task.insert(task, id);
            self.by_id.insert(id, Entry { jobs, state: State::Busy(job), task });
        }
    }

    /// A worker has no message any more; one without a session is let go.
    pub fn freed(&mut self, id: WorkerId, site: Option<Arc<str>>) -> Option<Arc<Job>> {
        let entry = self.by_id.get_mut(&id)?;
        let State::Busy(job) = &entry.state else { return None };
        let job = job.clone();
        match site {
            Some(site) => {
                self.counter += 1;
                let since = self.counter;
                entry.state = State::Idle { site: site.clone(), since };
                self.idle.insert(since, id);
                self.idle_by_site.entry(site).or_default().push(id);
            }
            None => {
                self.by_id.remove(&id);
            }
        }
        Some(job)
    }

    /// A worker has lost its session: it is let go unless it was given a
    /// message meanwhile.
    pub fn session_closed(&mut self, id: WorkerId) {
        if self.by_id.get(&id).is_some_and(|entry| matches!(entry.state, State::Idle { .. })) {
            self.unlist(id);
            self.by_id.remove(&id);
        }
    }

    /// Lets all idle workers go.
    pub fn close_idle(&mut self) {
        for id in std::mem::take(&mut self.idle).into_values() {
            self.by_id.remove(&id);
        }
        self.idle_by_site.clear();
    }

    /// Waits for a task to end; the message of one that ended in the midst of
    /// it. Cancelling loses nothing.
    pub async fn ended(&mut self) -> Option<(Arc<Job>, JoinError)> {
        let (task, error) = match self.tasks.join_next_with_id().await? {
            Ok((task, ())) => (task, None),
            Err(error) => (error.id(), Some(error)),
        };
        let id = self.by_task.remove(&task)?;
        let error = error?;
        if self.by_id.get(&id).is_none_or(|entry| entry.task != task) {
            return None;
        }
        self.unlist(id);
        match self.by_id.remove(&id)?.state {
            State::Busy(job) => Some((job, error)),
            State::Idle { .. } => None,
        }
    }

    /// Ends all tasks at once.
    pub async fn abort(&mut self) {
        self.by_id.clear();
        self.tasks.shutdown().await;
    }

    fn unlist(&mut self, id: WorkerId) {
        let Some(Entry { state: State::Idle { site, since }, .. }) = self.by_id.get(&id) else {
            return;
        };
        self.idle.remove(since);
        if let Some(ids) = self.idle_by_site.get_mut(site) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.idle_by_site.remove(site);
            }
        }
    }
}
