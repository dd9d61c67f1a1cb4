//! Requests that may take their connection over (RFC 9110 §7.8): sent by hyper, whose upgrades the request path joins.

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{
    super::error::{SendError, Sent, Unsent},
    connection::Boxed,
};
use crate::body::RequestBody;

/// Held while the response is read: without it the connection closes.
pub(in super::super) type Sender = http1::SendRequest<RequestBody>;

/// Sends a request and waits for the head of its response; the connection is driven by a task and not used again.
///
/// # Errors
/// When there is no head; an unsent request comes back.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(in super::super) async fn send(
    connection: Boxed,
    request: Box<Request<RequestBody>>,
) -> Result<(Response<Incoming>, Sender), SendError> {
    let stream = TokioIo::new(connection.into_stream());
    let (mut sender, driver) = match http1::handshake(stream).await {
        Ok(both) => both,
        Err(error) => return Err(SendError::unsent(Unsent::Refused).because(error).giving_back(request)),
    };
    tokio::spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "the connection of an upgrade ended");
        }
    });
    match sender.try_send_request(*request).await {
        Ok(response) => Ok((response, sender)),
        Err(mut error) => {
            let request = error.take_message();
            let error = error.into_error();
            Err(match request {
                Some(request) => {
                    SendError::unsent(Unsent::Refused).because(error).giving_back(Box::new(request))
                }
                None if error.is_user() => SendError::sent(Sent::RequestBody).because(error),
                None if error.is_parse() => SendError::sent(Sent::Protocol).because(error),
                None => SendError::sent(Sent::Closed).because(error),
            })
        }
    }
}
