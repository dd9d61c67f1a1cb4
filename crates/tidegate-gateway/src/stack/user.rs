//! Whose call it is: pages of sessions, and what a call is let in with or shown instead.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tidegate::clock;
use tidegate_core::Call;

use super::{Found, Stop};
use crate::{
    body::ResponseBody,
    oidc::session::{Denied, Page, Session, User, Visit},
    pressure::{Pressure, Step},
    proxy::target,
    refusal::Cause,
};

/// Longest form that a page of a session reads. Default: 64 KiB.
const MOST_FORM_BYTES: usize = 64 << 10;
/// Longest time that it may take to come. Default: 10 s.
const FORM_TIME: Duration = Duration::from_secs(10);

/// A page of a session.
pub(super) async fn own_page(
    session: &Arc<Session>,
    page: Page,
    request: Request<Incoming>,
    pressure: Option<&Pressure>,
    call: &Call,
) -> Result<Response<ResponseBody>, Cause> {
    let host = target::host(&request)?;
    if page == Page::Callback
        && let Some(Err(refused)) = pressure.map(|pressure| pressure.admit(Step::Last, call))
    {
        return Ok(session.for_people(session.held_off(refused.retry_after), request.headers()));
    }
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, ());
    let form = if page.takes_a_form() && request.method() == Method::POST {
        let read = tokio::time::timeout(FORM_TIME, Limited::new(body, MOST_FORM_BYTES).collect()).await;
        let form = read.map_err(|_| Cause::SlowClient)?;
        form.map_err(|_| Cause::BadRequest("the form broke off, or is longer than 64 KiB"))?.to_bytes()
    } else {
        Bytes::new()
    };
    Ok(session.answer(page, &visit(&request, &host), form).await)
}

/// Lets an upgrade pass that no page of another origin asks for.
pub(super) fn from_own_pages<'t, B>(
    session: &Session,
    request: &Request<B>,
    host: &HeaderValue,
) -> Result<(), Stop<'t>> {
    let Some(page) = session.cross_site(&visit(request, host)) else { return Ok(()) };
    Err(Stop { page: Some(Box::new(page)), ..Cause::NoRoute.into() })
}

/// Tells whose call it is before its limits decide, as they count by that.
pub(super) async fn first<'t>(
    session: &Session,
    found: Found<'t>,
    pressure: Option<&Pressure>,
    call: &mut Call,
) -> Result<(Found<'t>, Option<User>), Stop<'t>> {
    let user = admit_user(session, &found.request, &found.host, pressure, call).await?;
    Ok((found, Some(user)))
}

/// Tells whose call it is, or what its client is shown instead.
pub(super) async fn admit_user<'t, B>(
    session: &Session,
    request: &Request<B>,
    host: &HeaderValue,
    pressure: Option<&Pressure>,
    call: &mut Call,
) -> Result<User, Stop<'t>> {
    // Without the body, which may not be looked at from several threads.
    let (visit, method) = (visit(request, host), request.method());
    let admitted = match session.try_admit(call, visit.headers, method) {
        Some(admitted) => admitted,
        None => {
            let admitted = session.admit(call, visit.headers, method).await;
            *call = Call { now: clock::now(), ..*call };
            admitted
        }
    };
    let page = match admitted {
        Ok(user) => return Ok(user),
        Err(Denied::Refused(refused)) => return Err(Cause::NoToken(refused).into()),
        Err(Denied::Login) => match pressure.map(|pressure| pressure.admit(Step::First, call)) {
            Some(Err(refused)) => session.held_off(refused.retry_after),
            Some(Ok(())) | None => session.login(&visit).await,
        },
        Err(Denied::Unauthorized) => session.unauthorized(),
        Err(Denied::Forbidden) => session.forbidden(),
    };
    let page = session.for_people(page, visit.headers);
    Err(Stop { page: Some(Box::new(page)), ..Cause::NoRoute.into() })
}

/// What sessions look at.
fn visit<'r, B>(request: &'r Request<B>, host: &'r HeaderValue) -> Visit<'r> {
    Visit {
        method: request.method(),
        target: request.uri().path_and_query().map_or("/", |target| target.as_str()),
        host: host.to_str().unwrap_or_default(),
        headers: request.headers(),
    }
}
