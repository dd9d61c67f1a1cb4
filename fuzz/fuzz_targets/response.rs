//! Any bytes, cut anywhere, read as the response to a request.
#![cfg_attr(fuzzing, no_main)]

use http::Method;
use tidegate_gateway::fuzzing;

fn response(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let method = if cut & 1 == 0 { Method::GET } else { Method::HEAD };
    let whole = fuzzing::response(std::iter::once(bytes), &method);
    for step in [1, 2 + usize::from(cut >> 1)] {
        assert_eq!(fuzzing::response(bytes.chunks(step), &method), whole, "in pieces of {step}");
    }
}

tidegate_fuzz::target!(response);
