//! Any source behind one type, so that a registry is one type too.

use std::{future::Future, pin::Pin};

use super::{Listing, Registrant, ServiceName, Source, SourceError, Update, Watch};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

pub(super) trait AnySource: Send + Sync {
    fn describe(&self) -> String;
    fn list(&self) -> Boxed<'_, Vec<ServiceName>>;
    fn get<'a>(&'a self, service: &'a ServiceName) -> Boxed<'a, Listing>;
    fn watch<'a>(&'a self, service: &'a ServiceName) -> Boxed<'a, Box<dyn AnyWatch>>;
    fn register(&self, registrant: Registrant) -> Result<(), SourceError>;
}

pub(super) trait AnyWatch: Send {
    fn next(&mut self) -> Boxed<'_, Update>;
}

impl<S: Source> AnySource for S {
    fn describe(&self) -> String {
        Source::describe(self)
    }

    fn list(&self) -> Boxed<'_, Vec<ServiceName>> {
        Box::pin(Source::list(self))
    }

    fn get<'a>(&'a self, service: &'a ServiceName) -> Boxed<'a, Listing> {
        Box::pin(Source::get(self, service))
    }

    fn watch<'a>(&'a self, service: &'a ServiceName) -> Boxed<'a, Box<dyn AnyWatch>> {
        Box::pin(async move { Ok(Box::new(Source::watch(self, service).await?) as Box<dyn AnyWatch>) })
    }

    fn register(&self, registrant: Registrant) -> Result<(), SourceError> {
        Source::register(self, registrant)
    }
}

impl<W: Watch> AnyWatch for W {
    fn next(&mut self) -> Boxed<'_, Update> {
        Box::pin(Watch::next(self))
    }
}
