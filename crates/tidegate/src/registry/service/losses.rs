//! What a service lost within a window: whether that is more than a deployment loses, and who went before it was known.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Preservation;
use crate::{Instant, registry::Instance};

/// What was lost of late.
#[derive(Debug)]
pub(super) struct Losses {
    peak: Peak,
    /// Those that went as in a deployment, were not replaced, and when. Never more than the share: what exceeds it is
    /// suspect.
    gone: BTreeMap<String, (Arc<Instance>, Instant)>,
}

impl Losses {
    pub(super) fn new(now: Instant) -> Self {
        Self { peak: Peak { began: now, this: 0, before: 0 }, gone: BTreeMap::new() }
    }

    /// A service has this many instances.
    pub(super) fn has(&mut self, size: usize, rule: Preservation, now: Instant) {
        self.peak.see(size, rule.window, now);
    }

    /// One is listed.
    pub(super) fn is_listed(&mut self, id: &str) {
        self.gone.remove(id);
    }

    /// A word of the source took these away and left so many. Returns those to be doubted: none as in a deployment; else
    /// these, and those that went before it was known that they are of a greater loss.
    pub(super) fn lose(
        &mut self,
        vanished: BTreeMap<String, Arc<Instance>>,
        left: usize,
        rule: Preservation,
        now: Instant,
    ) -> BTreeMap<String, Arc<Instance>> {
        let most = self.peak.see(left, rule.window, now);
        let lost = most.saturating_sub(left);
        let many = lost > 1 && lost * 100 > most * rule.share as usize;
        let doubtful = lost > 0 && (left == 0 || many);
        self.gone.retain(|_, (_, when)| now.since(*when) < rule.window);
        if doubtful {
            self.forget_all_but(lost.saturating_sub(vanished.len()));
            let before = std::mem::take(&mut self.gone).into_iter().map(|(id, (instance, _))| (id, instance));
            return before.chain(vanished).collect();
        }
        self.gone.extend(vanished.into_iter().map(|(id, instance)| (id, (instance, now))));
        // Whoever was replaced is missed by nobody.
        self.forget_all_but(lost);
        BTreeMap::new()
    }

    /// Forgets the oldest of them.
    fn forget_all_but(&mut self, count: usize) {
        while self.gone.len() > count {
            let oldest = self.gone.iter().min_by_key(|(_, (_, when))| *when).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.gone.remove(&id));
        }
    }
}

/// The most instances at once, over the last one to two windows.
#[derive(Clone, Copy, Debug)]
struct Peak {
    began: Instant,
    this: usize,
    before: usize,
}

impl Peak {
    fn see(&mut self, size: usize, window: Duration, now: Instant) -> usize {
        let passed = now.since(self.began);
        if passed >= window {
            self.before = if passed < window * 2 { self.this } else { 0 };
            (self.began, self.this) = (now, 0);
        }
        self.this = self.this.max(size);
        self.this.max(self.before)
    }
}
