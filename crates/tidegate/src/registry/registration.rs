//! A registration: its owner's end, and the end of the source that keeps it alive.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use super::{Instance, SourceError};
use crate::{Instant, clock};

/// How a registration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The source has not succeeded yet; goes to `Registered`, or says why not.
    Pending {
        /// What the last attempt came to.
        why: Option<SourceError>,
    },
    /// The instance can be found as its owner wants it; goes to `Lost`, or to `Pending` while a change is published.
    Registered {
        /// Since when.
        since: Instant,
    },
    /// It was registered and is no more, or cannot be known to be; the source heals it.
    Lost {
        /// Since when.
        since: Instant,
        /// What happened.
        why: SourceError,
    },
    /// Deregistered, as its owner wished. Stays so.
    Gone,
}

/// The source ended its end of a registration, with its own end or that of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the source has ended and keeps no registration any more; register with a new one")
    }
}

impl std::error::Error for Gone {}

/// Makes the two ends of a registration: the owner's, and the source's.
pub fn registration(instance: Instance) -> (Registration, Registrant) {
    let (wanted, wish) = watch::channel(Some(Arc::new(instance)));
    let (tell, standing) = watch::channel(Standing::Pending { why: None });
    (Registration { wanted, standing }, Registrant { wish, tell })
}

/// An instance that stays registered until this is dropped or [deregistered](Registration::deregister).
///
/// Its source heals it when it is lost. Dropping it deregisters in the background.
#[derive(Debug)]
#[must_use = "dropping a registration deregisters"]
pub struct Registration {
    wanted: watch::Sender<Option<Arc<Instance>>>,
    standing: watch::Receiver<Standing>,
}

impl Registration {
    /// How it stands now.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until it stands otherwise than when last asked by this method, and says how.
    ///
    /// # Errors
    /// [`Gone`] when the source has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Result<Standing, Gone> {
        self.standing.changed().await.map_err(|_| Gone)?;
        Ok(self.standing.borrow_and_update().clone())
    }

    /// Waits until it is registered; at once if it is.
    ///
    /// # Errors
    /// [`Gone`] when the source has ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn registered(&self) -> Result<(), Gone> {
        let mut standing = self.standing.clone();
        let registered = standing.wait_for(|standing| matches!(standing, Standing::Registered { .. })).await;
        registered.map(drop).map_err(|_| Gone)
    }

    /// Publishes the instance as it is now: its address, weight or metadata changed. Service and id stay as they are;
    /// an instance with others is another registration.
    pub fn update(&self, change: impl FnOnce(&mut Instance)) {
        self.wanted.send_if_modified(|wanted| {
            let Some(known) = wanted else { return false };
            let mut new = (**known).clone();
            change(&mut new);
            (new.service, new.id) = (known.service.clone(), known.id.clone());
            let modified = new != **known;
            *known = Arc::new(new);
            modified
        });
    }

    /// Deregisters, and waits until the source has done so.
    ///
    /// # Errors
    /// [`Gone`] when the source ended before; the instance then ends with its lease.
    ///
    /// # Cancel safety
    /// Dropping the future deregisters in the background.
    pub async fn deregister(mut self) -> Result<(), Gone> {
        self.wanted.send_replace(None);
        self.standing.wait_for(|standing| *standing == Standing::Gone).await.map(drop).map_err(|_| Gone)
    }
}

/// A source's end of a registration. A source drives it like this:
///
/// ```
/// # use tidegate::registry::{Registrant, Standing, SourceError};
/// # async fn publish(_: &tidegate::registry::Instance) -> Result<(), SourceError> { Ok(()) }
/// # async fn remove() {}
/// # async fn pause() {}
/// async fn keep(mut registrant: Registrant) {
///     while let Some(instance) = registrant.wanted() {
///         match publish(&instance).await {
///             Ok(()) => {
///                 registrant.registered(&instance);
///                 registrant.changed().await; // or the loss of the lease
///             }
///             Err(why) => {
///                 registrant.failed(why);
///                 pause().await; // backoff with jitter, under a budget
///             }
///         }
///     }
///     remove().await;
///     registrant.gone();
/// }
/// ```
#[derive(Debug)]
pub struct Registrant {
    wish: watch::Receiver<Option<Arc<Instance>>>,
    tell: watch::Sender<Standing>,
}

impl Registrant {
    /// The instance as its owner wants it now; `None` when it wants it no longer.
    pub fn wanted(&mut self) -> Option<Arc<Instance>> {
        let wanted = self.wish.borrow_and_update().clone();
        // An owner that dropped its end wants nothing.
        if self.wish.has_changed().is_err() { None } else { wanted }
    }

    /// Waits until the owner wants something else than [`wanted`](Self::wanted) said last.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        drop(self.wish.changed().await);
    }

    /// Tells that `instance` is registered. If the owner wants another by now, it stays pending.
    pub fn registered(&self, instance: &Instance) {
        if self.wish.borrow().as_deref() == Some(instance) {
            self.tell.send_if_modified(|standing| {
                let news = !matches!(standing, Standing::Registered { .. });
                if news {
                    *standing = Standing::Registered { since: clock::now() };
                }
                news
            });
        } else {
            self.tell.send_replace(Standing::Pending { why: None });
        }
    }

    /// Tells that the instance is not registered, or not known to be: it is lost if it was, else still pending.
    pub fn failed(&self, why: SourceError) {
        self.tell.send_modify(|standing| {
            *standing = match standing {
                Standing::Registered { .. } => Standing::Lost { since: clock::now(), why },
                Standing::Lost { since, .. } => Standing::Lost { since: *since, why },
                Standing::Pending { .. } | Standing::Gone => Standing::Pending { why: Some(why) },
            };
        });
    }

    /// Tells that the instance is deregistered; the last word.
    pub fn gone(self) {
        self.tell.send_replace(Standing::Gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance::new("orders".parse().unwrap(), "7", "10.0.0.7:9001".parse().unwrap())
    }

    #[test]
    fn an_owner_that_goes_away_wants_nothing_any_more() {
        let (registration, mut registrant) = registration(instance());
        assert_eq!(registrant.wanted().as_deref(), Some(&instance()));
        drop(registration);
        assert_eq!(registrant.wanted(), None);
    }

    #[tokio::test]
    async fn a_loss_says_since_when_and_heals() {
        let (registration, mut registrant) = registration(instance());
        let wanted = registrant.wanted().unwrap();
        registrant.failed(SourceError::unavailable("down"));
        assert!(matches!(registration.standing(), Standing::Pending { why: Some(_) }));
        registrant.registered(&wanted);
        registration.registered().await.unwrap();
        registrant.failed(SourceError::unavailable("lease ended"));
        let Standing::Lost { since, .. } = registration.standing() else { panic!("lost") };
        registrant.failed(SourceError::unavailable("still down"));
        let Standing::Lost { since: still, why } = registration.standing() else { panic!("lost") };
        assert_eq!((still, &*why.message), (since, "still down"));
        registrant.registered(&wanted);
        registration.registered().await.unwrap();
    }

    #[tokio::test]
    async fn a_change_is_published_and_keeps_service_and_id() {
        let (registration, mut registrant) = registration(instance());
        let first = registrant.wanted().unwrap();
        registration.update(|instance| {
            instance.id = "8".into();
            instance.weight = 5;
        });
        registrant.changed().await;
        registrant.registered(&first);
        assert_eq!(
            registration.standing(),
            Standing::Pending { why: None },
            "what it wants is not there yet"
        );
        let second = registrant.wanted().unwrap();
        assert_eq!((&*second.id, second.weight), ("7", 5));
        registrant.registered(&second);
        registration.registered().await.unwrap();
    }

    #[tokio::test]
    async fn deregistering_waits_for_the_source_and_ends_with_it() {
        let (first, mut registrant) = registration(instance());
        let source = tokio::spawn(async move {
            registrant.changed().await;
            assert_eq!(registrant.wanted(), None);
            registrant.gone();
        });
        first.deregister().await.unwrap();
        source.await.unwrap();
        let (second, registrant) = registration(instance());
        drop(registrant);
        assert_eq!(second.deregister().await, Err(Gone));
    }
}
