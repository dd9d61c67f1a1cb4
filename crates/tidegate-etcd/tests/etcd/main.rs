//! The registry in etcd against real servers: etcd 3.4, the oldest that is supported, and 3.7.
//!
//! What must not happen, and the test that shows it; logins are those that etcd counts itself:
//!
//! | what must not happen | tests |
//! |---|---|
//! | a changed instance, or one that takes a dead one's id, expires | `registrations::a_changed_address_*`, `a_key_taken_over_*` |
//! | leases that nobody uses live on | `registrations::deregistering_the_last_*`, `closing_*` |
//! | the end of a lease is not noticed, or a stream a lease | `registrations::a_lost_lease_*`, `many_services_of_a_process_*` |
//! | of a batch, or around a reading, events are lost | `watches::every_event_*`, `nothing_is_lost_*`, `a_batch_*` |
//! | a compacted history, or one set back, is not read again | `watches::a_history_*`, `an_etcd_that_was_set_back_*` |
//! | the end of one registration takes its successor's key | `registrations::a_registration_that_follows_*` |
//! | a change is not published; keys collide | `registrations::every_part_*`, `instances_whose_names_*` |
//! | a fleet comes back at once | `registrations::a_fleet_that_lost_*`, `logins::the_logins_of_many_*` |
//! | heartbeats, streams and watches log in | `logins::heartbeats_*`, `fleet` |
//! | of several members none, or a wrong one, is asked | `failures::of_several_hosts_*`, `a_member_*` |
//! | what is deleted or overwritten by hand stays so | `registrations::a_key_deleted_*` |
//! | a token that ran out, or is of an older revision, is not renewed, or in a crowd | `logins::a_token_*`, `when_the_token_*` |
//! | a wrong password is tried again and again | `logins::a_wrong_password_*` |
//! | "could not ask" is "there is none" | `failures::who_cannot_ask_*` |
//! | one that was taken out comes back | `registrations::a_deregistered_instance_*` |
//! | a crash, a halt, a change of users, a compaction, an end of all leases fails a lookup | `guarded` |
//! | values that are no instances remove or break something | `watches::values_that_are_no_*` |

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect ends there")]

mod failures;
mod fleet;
mod guarded;
mod logins;
#[path = "../../../tidegate/tests/support/ports.rs"]
mod ports;
mod registrations;
mod server;
mod support;
mod tls;
mod watches;
