//! Any extractor on any call: the first line is the extractor, the second host, path and query, the rest are header fields.
#![cfg_attr(fuzzing, no_main)]

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tidegate_gateway::key::{Extractor, Facts};

fn key(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let (name, target) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let (Ok(name), Ok(target)) = (std::str::from_utf8(name), std::str::from_utf8(target)) else { return };
    let extractor = match name.parse::<Extractor>() {
        Ok(extractor) => extractor,
        Err(why) => return assert!(!why.to_string().is_empty()),
    };
    assert_eq!(extractor.to_string().parse().as_ref(), Ok(&extractor), "{name:?}");
    let (target, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let at = target.find('/').unwrap_or(target.len());
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]))
        {
            headers.append(name, value);
        }
    }
    let mut address = [0; 16];
    address.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    let facts = |headers| Facts {
        method: &Method::GET,
        host: &target[..at],
        path: &target[at..],
        query,
        headers,
        client: IpAddr::V6(Ipv6Addr::from(address)),
        user: None,
    };
    let parts = |facts: &Facts<'_>| {
        let mut parts = Vec::new();
        extractor.feed(facts, |part| parts.push(part.map(<[u8]>::to_vec)));
        parts
    };
    let given = parts(&facts(&headers));
    assert!(!given.is_empty(), "{name:?} says nothing, not even that it is absent");
    assert_eq!(given, parts(&facts(&headers.clone())));
}

tidegate_fuzz::target!(key);
