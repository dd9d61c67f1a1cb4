use super::*;

fn parts(extractor: &str, headers: &[(&str, &str)], client: &str) -> Vec<Option<String>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let facts = Facts {
        method: &Method::GET,
        host: "API.example.com",
        path: "/orders/42",
        query: Some("a=1&user=J%6fe+D&empty="),
        headers: &map,
        client: client.parse().unwrap(),
        user: None,
    };
    let mut parts = Vec::new();
    extractor
        .parse::<Extractor>()
        .unwrap()
        .feed(&facts, |part| parts.push(part.map(|part| String::from_utf8_lossy(part).into_owned())));
    parts
}

fn some(text: &str) -> Vec<Option<String>> {
    vec![Some(text.into())]
}

#[test]
fn each_extractor_reads_its_part() {
    let headers = [("x-api-key", "k1"), ("cookie", "a=b; sid=abc=d"), ("x-empty", "")];
    let read = |extractor| parts(extractor, &headers, "192.0.2.1");
    assert_eq!(read("header:X-Api-Key"), some("k1"));
    assert_eq!(read("header:x-empty"), some(""));
    assert_eq!(read("header:x-none"), [None]);
    assert_eq!(read("query:user"), some("Joe D"));
    assert_eq!(read("query:empty"), some(""));
    assert_eq!(read("query:none"), [None]);
    assert_eq!(read("cookie:sid"), some("abc=d"));
    assert_eq!(read("cookie:none"), [None]);
    assert_eq!(read("path"), some("/orders/42"));
    assert_eq!(read("path:1"), some("orders"));
    assert_eq!(read("path:2"), some("42"));
    assert_eq!(read("path:3"), [None]);
    assert_eq!(read("method"), some("GET"));
    assert_eq!(read("host"), some("api.example.com"));
}

#[test]
fn a_part_that_is_there_more_than_once_makes_no_key_of_a_callers_choice() {
    let read = |cookies: &[(&str, &str)]| parts("cookie:sid", cookies, "192.0.2.1");
    assert_eq!(read(&[("cookie", "sid=junk; sid=real")]), [None], "as a call without it");
    assert_eq!(read(&[("cookie", "sid=junk"), ("cookie", "sid=real")]), [None]);
    assert_eq!(read(&[("cookie", "sid=real; a=b"), ("cookie", "sid=real")]), some("real"));

    let header = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-key", value.parse().unwrap());
        }
        "header:x-key".parse::<Extractor>().unwrap().repeated(None, &headers)
    };
    let query = |query| "query:key".parse::<Extractor>().unwrap().repeated(query, &HeaderMap::new());
    assert_eq!(
        (header(&[]), header(&["a"]), query(None), query(Some("key=a&b=c"))),
        (None, None, None, None)
    );
    assert!(header(&["a", "a"]).is_some_and(|why| why.contains("header field")));
    assert!(query(Some("key=a&k%65y=b")).is_some_and(|why| why.contains("query parameter")));
}

#[test]
fn a_claim_is_that_of_the_user_and_absent_where_nobody_is_logged_in() {
    let user = Claims::read(r#"{"sub":"ann","https://x/roles":["a","b"],"address":{}}"#);
    let part = |extractor: &str, user| {
        let facts = Facts {
            method: &Method::GET,
            host: "h",
            path: "/",
            query: None,
            headers: &HeaderMap::new(),
            client: IpAddr::from([127, 0, 0, 1]),
            user,
        };
        let mut fed = None;
        extractor.parse::<Extractor>().unwrap().feed(&facts, |part| fed = part.map(<[u8]>::to_vec));
        fed
    };
    assert_eq!(part("claim:sub", Some(&user)).as_deref(), Some(&b"ann"[..]));
    assert_eq!(part("claim:https://x/roles", Some(&user)).as_deref(), Some(&b"a,b"[..]));
    assert_eq!(part("claim:address", Some(&user)), None);
    assert_eq!(part("claim:email", Some(&user)), None);
    assert_eq!(part("claim:sub", None), None);
    assert_eq!("claim:sub".parse::<Extractor>().unwrap().to_string(), "claim:sub");
}

#[test]
fn addresses_of_one_subscriber_are_one_key() {
    let key = |client| parts("client-ip", &[], client);
    assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
    assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
}

#[test]
fn what_an_operator_writes_is_the_key_of_the_calls_that_have_it() {
    let headers = [("x-api-key", "k1"), ("cookie", "sid=abc")];
    for (extractor, value) in [
        ("header:x-api-key", "k1"),
        ("query:user", "Joe D"),
        ("cookie:sid", "abc"),
        ("path", "/orders/42"),
        ("path:2", "42"),
        ("method", "GET"),
        ("host", "API.example.com"),
        ("client-ip", "192.0.2.7"),
        ("client-ip/24", "192.0.2.0/24"),
        ("client-ip", "::ffff:192.0.2.7"),
    ] {
        let mut fed = Vec::new();
        let parsed: Extractor = extractor.parse().unwrap();
        let feed =
            |part: Option<&[u8]>| fed.push(part.map(|part| String::from_utf8_lossy(part).into_owned()));
        parsed.feed_value(value, feed).unwrap();
        assert_eq!(fed, parts(extractor, &headers, "192.0.2.7"), "{extractor}");
    }
    let client: Extractor = "client-ip".parse().unwrap();
    assert!(client.feed_value("localhost", |_| ()).is_err());
}

#[test]
fn a_network_is_one_key_for_each_family() {
    let same = |extractor, a, b| parts(extractor, &[], a) == parts(extractor, &[], b);
    assert!(
        same("client-ip/24", "192.0.2.1", "192.0.2.200") && !same("client-ip/24", "192.0.2.1", "192.0.3.1")
    );
    assert!(same("client-ip/24", "::ffff:192.0.2.1", "192.0.2.200"), "a mapped address is an IPv4 one");
    assert!(!same("client-ip/24", "2001:db8::1", "2001:db8:0:1::1"), "IPv6 stays by its /64");
    assert!(same("client-ip/48", "2001:db8:0:1::1", "2001:db8:0:2::1"));
    assert!(!same("client-ip/48", "192.0.2.1", "192.0.2.2"), "IPv4 stays whole");
    assert!(same("client-ip/8/32", "10.1.1.1", "10.2.2.2"));
    assert!(same("client-ip/8/32", "2001:db8:1::1", "2001:db8:2::1"));
    assert!(!same("client-ip/128", "2001:db8::1", "2001:db8::2"));
    assert_eq!("client-ip/24".parse::<Extractor>().unwrap().to_string(), "client-ip/24/64");
}

#[test]
fn what_is_no_extractor_says_why() {
    for (text, why) in [
        ("", InvalidExtractor::Unknown),
        ("ip", InvalidExtractor::Unknown),
        ("method:GET", InvalidExtractor::Unknown),
        ("header", InvalidExtractor::Name),
        ("header:", InvalidExtractor::Name),
        ("header:a b", InvalidExtractor::Name),
        ("query:", InvalidExtractor::Name),
        ("cookie:a;b", InvalidExtractor::Name),
        ("path:0", InvalidExtractor::Segment),
        ("path:x", InvalidExtractor::Segment),
        ("client-ip/", InvalidExtractor::Network),
        ("client-ip/0", InvalidExtractor::Network),
        ("client-ip/+8", InvalidExtractor::Network),
        ("client-ip/129", InvalidExtractor::Network),
        ("client-ip/48/24", InvalidExtractor::Network),
        ("client-ip/24:x", InvalidExtractor::Unknown),
        ("claim", InvalidExtractor::Name),
        ("claim:", InvalidExtractor::Name),
        ("claim:a b", InvalidExtractor::Name),
    ] {
        assert_eq!(text.parse::<Extractor>(), Err(why), "{text}");
    }
}

#[test]
fn broken_percent_encoding_is_taken_as_it_stands() {
    assert_eq!(&*decoded(b"100%"), b"100%");
    assert_eq!(&*decoded(b"%zz%4"), b"%zz%4");
    assert_eq!(&*decoded(b"%41+b"), b"A b");
}
