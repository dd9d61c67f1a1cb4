//! What a service is said to be, word by word.

use super::*;

const START: Instant = Instant::from_nanos(1_700_000_000_000_000_000);

fn at(seconds: u64) -> Instant {
    START + Duration::from_secs(seconds)
}

fn instance(id: u64) -> Arc<Instance> {
    let address = format!("10.0.0.1:{}", 9000 + id).parse().expect("an address");
    Arc::new(Instance::new("orders".parse().expect("a name"), format!("{id:03}"), address))
}

fn listing(revision: u64, ids: impl IntoIterator<Item = u64>) -> Listing {
    let instances = ids.into_iter().map(instance).collect();
    Listing { revision: Revision(revision), instances, malformed: 0 }
}

fn removed(revision: u64, ids: impl IntoIterator<Item = u64>) -> Update {
    let changes = ids.into_iter().map(|id| Change::Removed(format!("{id:03}"))).collect();
    Update::Changes { revision: Revision(revision), changes }
}

fn service(count: u64) -> Service {
    let mut service = Service::new("orders".parse().unwrap(), Preservation::default(), START);
    assert_eq!(service.read(listing(1, 0..count), START, START), Heard::Changed);
    service
}

fn counts(service: &Service) -> (usize, usize) {
    let snapshot = service.snapshot();
    (snapshot.endpoints.len(), snapshot.suspects().count())
}

#[test]
fn a_mass_expiry_leaves_every_endpoint_as_a_suspect_until_the_source_confirms_it_after_the_grace() {
    let mut service = service(100);
    assert_eq!(service.update(removed(2, 0..100), at(1)), Heard::Changed);
    assert_eq!(counts(&service), (100, 100));
    assert_eq!(service.confirm_at(), Some(at(31)));
    assert_eq!(service.read(listing(2, []), at(30), at(30)), Heard::Same, "asked inside the grace");
    assert_eq!(counts(&service), (100, 100));
    assert_eq!(service.read(listing(2, []), at(31), at(32)), Heard::Changed);
    assert!(service.is_empty());
}

#[test]
fn suspects_that_register_again_are_cleared() {
    let mut service = service(10);
    service.update(removed(2, 0..10), at(1));
    let back = (0..4).map(|id| Change::Put(instance(id))).collect();
    service.update(Update::Changes { revision: Revision(3), changes: back }, at(5));
    assert_eq!(counts(&service), (10, 6));
    service.read(listing(4, 0..10), at(6), at(6));
    assert_eq!((counts(&service), service.confirm_at()), ((10, 0), None));
}

#[test]
fn the_last_endpoint_is_never_lost_to_one_deletion() {
    let mut service = service(1);
    service.update(removed(2, [0]), at(1));
    assert_eq!(counts(&service), (1, 1));
}

#[test]
fn one_endpoint_of_several_goes_at_once_and_so_does_less_than_the_share() {
    let mut few = service(3);
    few.update(removed(2, [0]), at(1));
    assert_eq!(counts(&few), (2, 0));
    let mut many = service(100);
    many.update(removed(2, 0..15), at(1));
    assert_eq!(counts(&many), (85, 0));
    assert_eq!(many.update(removed(3, [80]), at(200)), Heard::Changed);
    assert_eq!(counts(&many), (84, 0), "another window");
}

#[test]
fn those_that_went_before_a_loss_was_known_to_be_great_come_back_as_suspects() {
    let mut service = service(100);
    service.update(removed(2, 0..10), at(1));
    service.update(removed(3, 10..15), at(20));
    assert_eq!(counts(&service), (85, 0), "up to the share, as in a deployment");
    service.update(removed(4, [15]), at(40));
    assert_eq!(counts(&service), (100, 16), "beyond it, all of them");
    assert_eq!(service.confirm_at(), Some(at(70)), "each is kept for the grace from the doubt on");
    assert_eq!(service.read(listing(4, 16..100), at(69), at(69)), Heard::Same);
    service.read(listing(4, 16..100), at(70), at(70));
    assert_eq!(counts(&service), (84, 0));
}

#[test]
fn leases_that_end_one_by_one_lose_no_endpoint_of_a_small_service() {
    for count in 2..10 {
        let mut service = service(count);
        for id in 0..count {
            service.update(removed(2 + id, [id]), at(1 + 3 * id));
        }
        let all = usize::try_from(count).unwrap();
        assert_eq!(counts(&service), (all, all), "of {count}");
    }
}

#[test]
fn only_what_went_within_the_window_comes_back() {
    let mut service = service(3);
    service.update(removed(2, [0]), at(50));
    service.update(removed(3, [1]), at(111));
    assert_eq!(counts(&service), (2, 1), "that of 61 s ago is missed, and too old to come back");
    service.update(removed(4, [2]), at(112));
    assert_eq!(counts(&service), (2, 2));
}

#[test]
fn those_that_were_replaced_do_not_come_back_with_a_mass_expiry() {
    let mut service = service(10);
    for round in 0..10 {
        let replace = vec![Change::Removed(format!("{round:03}")), Change::Put(instance(100 + round))];
        service.update(Update::Changes { revision: Revision(2 + round), changes: replace }, at(round));
    }
    service.update(removed(50, 100..110), at(20));
    let snapshot = service.snapshot();
    assert!(snapshot.endpoints.iter().all(|one| one.instance.id.starts_with('1')), "{snapshot:?}");
    assert_eq!(counts(&service), (10, 10));
}

#[test]
fn one_that_came_back_is_no_suspect_when_others_vanish() {
    let mut service = service(100);
    service.update(removed(2, 0..10), at(1));
    let back = vec![Change::Put(instance(3))];
    service.update(Update::Changes { revision: Revision(3), changes: back }, at(2));
    service.update(removed(4, 50..70), at(3));
    assert_eq!(counts(&service), (100, 29));
}

#[test]
fn the_memory_of_those_that_went_never_exceeds_what_is_missed() {
    let mut service = service(100);
    for round in 0..10_000 {
        let replace = vec![Change::Put(instance(100 + round)), Change::Removed(format!("{round:03}"))];
        service.update(Update::Changes { revision: Revision(2 + round), changes: replace }, at(1));
    }
    service.update(removed(20_000, 10_000..10_100), at(2));
    assert!(counts(&service).0 <= 101, "{:?}", counts(&service));
}

#[test]
fn a_rolling_deployment_is_no_mass_expiry() {
    let mut service = service(10);
    for round in 0..10 {
        let changes = vec![Change::Put(instance(100 + round)), Change::Removed(format!("{round:03}"))];
        service.update(Update::Changes { revision: Revision(2 + round), changes }, at(round));
    }
    assert_eq!(counts(&service), (10, 0));
}

#[test]
fn a_whole_batch_is_heard_in_order() {
    let mut service = service(2);
    let changes = vec![
        Change::Put(instance(7)),
        Change::Removed("000".into()),
        Change::Malformed("001".into()),
        Change::Put(instance(8)),
        Change::Removed("008".into()),
    ];
    service.update(Update::Changes { revision: Revision(2), changes }, at(1));
    let ids: Vec<_> = service.snapshot().endpoints.iter().map(|end| end.instance.id.clone()).collect();
    assert_eq!((ids, service.malformed), (vec!["001".to_owned(), "007".to_owned()], 1));
}

#[test]
fn an_older_word_changes_nothing_until_the_source_has_said_nothing_newer_for_the_grace() {
    let mut service = service(2);
    service.read(listing(50, 0..3), at(1), at(1));
    assert_eq!(service.read(listing(49, 0..2), at(2), at(2)), Heard::Late);
    assert_eq!((counts(&service), service.as_of()), ((3, 0), Some(at(1))), "nor does it confirm anything");
    assert_eq!(service.read(listing(50, 0..3), at(3), at(3)), Heard::Same);
    assert_eq!(service.read(listing(4, 0..3), at(10), at(10)), Heard::Late);
    assert_eq!(service.read(listing(5, 1..4), at(39), at(39)), Heard::Late);
    assert_eq!(service.read(listing(6, 1..4), at(40), at(40)), Heard::Changed, "restored from a backup");
    assert_eq!(service.snapshot().revision, Revision(6));
}

#[test]
fn what_a_process_before_knew_is_preserved_from_a_source_that_came_up_empty() {
    let mut service = Service::new("orders".parse().unwrap(), Preservation::default(), START);
    service.restore((0..5).map(instance).collect(), START - Duration::from_secs(60), START);
    service.read(listing(1, []), at(1), at(1));
    assert_eq!(counts(&service), (5, 5));
}

#[test]
fn a_suspect_that_was_called_in_vain_goes_unless_it_is_the_last() {
    let mut service = service(2);
    service.update(removed(2, 0..2), at(1));
    assert_eq!(service.refute("000"), Heard::Changed);
    assert_eq!(service.refute("001"), Heard::Same);
    assert_eq!(counts(&service), (1, 1));
}

#[test]
fn a_suspect_that_serves_is_none_until_the_source_says_again_that_it_is_gone() {
    let mut service = service(3);
    assert_eq!(service.prove("000", at(0)), Heard::Same, "the source vouches for it");
    service.update(removed(2, 0..3), at(1));
    assert_eq!(service.prove("001", at(5)), Heard::Changed);
    assert_eq!(service.prove("001", at(6)), Heard::Same, "once is enough");
    let first = &service.snapshot().endpoints[0];
    assert_eq!((&*first.instance.id, first.doubt), ("001", Doubt::Proven { since: at(1), at: at(5) }));
    assert_eq!((counts(&service), service.suspects()), ((3, 2), 2));
    assert_eq!(service.read(listing(2, []), at(30), at(30)), Heard::Same, "inside the grace");
    assert_eq!((counts(&service), service.suspects()), ((3, 2), 2));
    service.read(listing(2, []), at(31), at(31));
    assert!(service.is_empty(), "no success makes an authoritative answer wrong");
}

#[test]
fn one_that_served_and_then_did_not_is_a_suspect_again_before_it_goes() {
    let mut service = service(2);
    service.update(removed(2, 0..2), at(1));
    service.prove("000", at(2));
    assert_eq!(service.refute("000"), Heard::Changed);
    assert_eq!(counts(&service), (2, 2));
    assert_eq!(service.refute("000"), Heard::Changed);
    assert_eq!(counts(&service), (1, 1));
    assert_eq!(service.prove("000", at(3)), Heard::Same, "gone is gone");
}

#[test]
fn a_listing_with_one_id_twice_has_one_endpoint() {
    let mut service = service(1);
    service.read(listing(2, [0, 5, 5]), at(1), at(1));
    assert_eq!(counts(&service), (2, 0));
}
