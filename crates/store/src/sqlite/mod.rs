//! The store's backend: `SQLite` files, one for each period.
//!
//! [`Files`] owns the directory and the bounded sets of open files, `writer`
//! the one connection that writes to a file, `reader` those that read,
//! `rows` how events become rows, `schema` what a file looks like.
//!
//! A file is never opened but by `SQLite` once it exists: closing any other
//! descriptor of it would end the locks of the whole process
//! (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).

mod reader;
mod rows;
mod schema;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

pub(crate) use self::writer::create;
use self::{reader::Reader, writer::Writer};
use crate::{StoreError, period::Span};

/// Files that are open for writing at once. More than one, since late events
/// belong to past periods.
const MAX_WRITERS: usize = 4;
/// Files that are open for reading at once.
const MAX_READERS: usize = 8;

/// The directory and what is open in it.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    open: Mutex<Option<Open>>,
}

/// `None` in [`Files`] once it was closed.
#[derive(Debug)]
struct Open {
    writers: Recent<Writer>,
    readers: Recent<Reader>,
}

impl Files {
    /// Makes the directory if need be.
    pub(crate) async fn open(dir: PathBuf) -> Result<Self, StoreError> {
        let made = dir.clone();
        let result = tokio::task::spawn_blocking(move || make_dir(&made)).await;
        result
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| StoreError::file("make or open the directory", &dir, source))?;
        let open = Open { writers: Recent::new(MAX_WRITERS), readers: Recent::new(MAX_READERS) };
        Ok(Self { dir, open: Mutex::new(Some(open)) })
    }

    fn path(&self, span: Span) -> PathBuf {
        self.dir.join(span.file_name())
    }

    /// The periods that have a file, oldest first.
    pub(crate) async fn list(&self) -> Result<Vec<Span>, StoreError> {
        if self.open.lock().is_none() {
            return Err(StoreError::Closed);
        }
        let failed = |source| StoreError::file("list the directory", &self.dir, source);
        let mut entries = tokio::fs::read_dir(&self.dir).await.map_err(failed)?;
        let mut spans = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            spans.extend(entry.file_name().to_str().and_then(Span::from_file_name));
        }
        spans.sort_unstable();
        Ok(spans)
    }

    /// The writer of a period; its file is made by the first append.
    pub(crate) async fn writer(&self, span: Span) -> Result<Arc<Writer>, StoreError> {
        let (writer, evicted) = {
            let mut open = self.open.lock();
            let writers = &mut open.as_mut().ok_or(StoreError::Closed)?.writers;
            match writers.get(span) {
                Some(writer) => (writer, None),
                None => writers.insert(span, Writer::new(self.path(span))),
            }
        };
        if let Some(evicted) = evicted
            && let Err(error) = evicted.close().await
        {
            // What it wrote is durable; only the tidying failed.
            tracing::warn!(%error, "an idle period of the log was not closed in order");
        }
        Ok(writer)
    }

    /// The reader of a period; `None` when there is nothing in it yet.
    pub(crate) async fn reader(&self, span: Span) -> Result<Option<Arc<Reader>>, StoreError> {
        if let Some(reader) = self.open.lock().as_mut().ok_or(StoreError::Closed)?.readers.get(span)
        {
            return Ok(Some(reader));
        }
        let path = self.path(span);
        // An empty file is being made, or was when the process ended.
        match tokio::fs::metadata(&path).await {
            Ok(metadata) if metadata.len() > 0 => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::file("open", &path, source)),
        }
        let reader = Reader::new(path);
        let version = match reader.version().await {
            // A process that was killed may leave what has to be rolled back
            // or recovered, which a connection that only reads must not do
            // (SQLITE_READONLY_ROLLBACK, SQLITE_READONLY_RECOVERY).
            Err(StoreError::ReadOnly { .. }) => {
                self.writer(span).await?.migrate().await?;
                reader.version().await?
            }
            version => version?,
        };
        match version {
            0 => return Ok(None),
            version if version < schema::VERSION => self.writer(span).await?.migrate().await?,
            _ => {}
        }
        let mut open = self.open.lock();
        let readers = &mut open.as_mut().ok_or(StoreError::Closed)?.readers;
        // Two may have opened it at the same time; the first one stays. One
        // that is evicted closes when its last user is done.
        let reader = readers.get(span).unwrap_or_else(|| readers.insert(span, reader).0);
        Ok(Some(reader))
    }

    /// Removes a period's file. Who is in the middle of an append to it makes
    /// it anew.
    pub(crate) async fn remove(&self, span: Span) -> Result<PathBuf, StoreError> {
        let (writer, reader) = {
            let mut open = self.open.lock();
            let open = open.as_mut().ok_or(StoreError::Closed)?;
            (open.writers.remove(span), open.readers.remove(span))
        };
        if let Some(reader) = reader {
            reader.close().await;
        }
        let writer = writer.unwrap_or_else(|| Arc::new(Writer::new(self.path(span))));
        writer.remove().await?;
        Ok(self.path(span))
    }

    /// Closes all files, readers first, so that the writers can fold their
    /// logs into the main files.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        let Some(open) = self.open.lock().take() else { return Ok(()) };
        for (_, reader) in open.readers.items {
            reader.close().await;
        }
        let mut result = Ok(());
        for (_, writer) in open.writers.items {
            result = result.and(writer.close().await);
        }
        result
    }
}

/// The directory, readable by its owner alone, and durable.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    if !dir.is_dir() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    std::fs::File::open(dir)?.sync_all()
}

/// A bounded set; the one that was unused the longest makes room.
#[derive(Debug)]
struct Recent<T> {
    /// The last one was used last.
    items: Vec<(Span, Arc<T>)>,
    limit: usize,
}

impl<T> Recent<T> {
    const fn new(limit: usize) -> Self {
        Self { items: Vec::new(), limit }
    }

    fn remove(&mut self, span: Span) -> Option<Arc<T>> {
        let at = self.items.iter().position(|(of, _)| *of == span)?;
        Some(self.items.remove(at).1)
    }

    fn get(&mut self, span: Span) -> Option<Arc<T>> {
        let item = self.remove(span)?;
        self.items.push((span, Arc::clone(&item)));
        Some(item)
    }

    /// Adds one; returns it, and the one that made room.
    fn insert(&mut self, span: Span, item: T) -> (Arc<T>, Option<Arc<T>>) {
        let evicted = (self.items.len() >= self.limit).then(|| self.items.remove(0).1);
        let item = Arc::new(item);
        self.items.push((span, Arc::clone(&item)));
        (item, evicted)
    }
}
