//! The source's end of a registration.

use std::{sync::Arc, time::Duration};

use tidegate::registry::{Instance, Registrant};
use tokio::{select, time::sleep};

use super::told;
use crate::{
    Error, ErrorKind,
    layout::KeySpace,
    lease::{Published, SharedLease, Told},
    pace::Backoff,
};

/// Keeps an instance in etcd until its owner no longer wants it.
pub(super) async fn keep(lease: SharedLease, space: KeySpace, mut registrant: Registrant) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut published: Option<Published> = None;
    let mut former: Option<Arc<Instance>> = None;
    while let Some(instance) = registrant.wanted() {
        let value: Arc<[u8]> = space.encode(&instance).into();
        match &published {
            Some(published) => {
                // What stands in etcd is not what its owner wants: it is pending until it is.
                if let Some(former) = former.take() {
                    registrant.registered(&former);
                }
                published.update(value.clone());
            }
            None => match lease.publish(&space.key(&instance), value.clone()) {
                Ok(new) => published = Some(new),
                Err(error) => {
                    registrant.failed(told(error));
                    // Its namesake may go away.
                    select! {
                        () = registrant.changed() => {}
                        () = sleep(backoff.failed()) => {}
                    }
                    continue;
                }
            },
        }
        let Some(new) = &mut published else { continue };
        follow(new, &value, &instance, &mut registrant).await;
        former = Some(instance);
    }
    if let Some(published) = published {
        published.withdraw().await;
    }
    registrant.gone();
}

/// Tells how the key stands until its owner wants something else.
async fn follow(
    published: &mut Published,
    value: &Arc<[u8]>,
    instance: &Instance,
    registrant: &mut Registrant,
) {
    loop {
        let news = published.told().borrow_and_update().clone();
        match news {
            Told::Held(held) if held == *value => registrant.registered(instance),
            Told::Held(_) | Told::Pending(None) => {}
            Told::Pending(Some(error)) | Told::Lost(error) => registrant.failed(told(error)),
            Told::Gone => {
                registrant.failed(told(Error::new(ErrorKind::LeaseLost, "the registry was closed")));
                return registrant.changed().await;
            }
        }
        select! {
            changed = published.told().changed() => {
                if changed.is_err() {
                    return registrant.changed().await;
                }
            }
            () = registrant.changed() => return,
        }
    }
}
