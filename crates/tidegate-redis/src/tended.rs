//! What a task looks after for as long as somebody holds it.

use std::{ops::Deref, sync::Arc};

use tokio::task::AbortHandle;

/// Something that a task works on; the task ends with it. It is held by those who use it, the task holds what is shared.
pub(crate) struct Tended<T> {
    shared: Arc<T>,
    task: AbortHandle,
}

impl<T> Tended<T> {
    pub(crate) const fn new(shared: Arc<T>, task: AbortHandle) -> Self {
        Self { shared, task }
    }
}

impl<T> Deref for Tended<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared
    }
}

impl<T> Drop for Tended<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
