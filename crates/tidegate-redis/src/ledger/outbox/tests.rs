use tidegate::fleet::Node;
use tidegate_core::ledger::Seen;

use super::*;

const DEADLINE: Duration = Duration::from_millis(48);

fn at(millis: u64) -> Instant {
    Instant::EPOCH + Duration::from_millis(millis)
}

type Told = oneshot::Receiver<Result<Reply, StoreError>>;

fn asked(queue: &mut Queue, number: u64, since: Instant) -> Told {
    let ask = Ask {
        node: Node(1),
        seq: number,
        least: 1,
        need: 1,
        want: 1,
        back: 0,
        of: 0,
        debt: 0,
        seen: Seen::default(),
    };
    let question = Question { account: String::new(), name: String::new(), ask };
    let (tell, told) = oneshot::channel();
    queue.waiting.push_back(Waiting { question, since, tell });
    told
}

fn next(queue: &mut Queue, now: Instant) -> Option<u64> {
    queue.next(now).map(|waiting| waiting.question.ask.seq)
}

#[test]
fn the_oldest_leaves_first_and_the_newest_once_the_oldest_waited_for_long() {
    let mut queue = Queue::new(DEADLINE);
    let _told: Vec<Told> = (1..=4).map(|number| asked(&mut queue, number, at(number))).collect();
    assert_eq!(next(&mut queue, at(10)), Some(1));
    assert_eq!(next(&mut queue, at(15)), Some(4), "number 2 waits for 13 ms");
    assert_eq!(next(&mut queue, at(15)), Some(3));
    assert_eq!(next(&mut queue, at(15)), Some(2));
    assert_eq!(next(&mut queue, at(15)), None);
}

#[test]
fn those_who_went_away_make_nobody_late() {
    let mut queue = Queue::new(DEADLINE);
    drop(asked(&mut queue, 1, at(1)));
    let _two = asked(&mut queue, 2, at(40));
    let _three = asked(&mut queue, 3, at(41));
    assert_eq!(next(&mut queue, at(45)), Some(2));
}

#[test]
fn a_slow_server_is_given_fewer_scripts_and_a_quick_one_more_again() {
    let mut queue = Queue::new(DEADLINE);
    let (least, most) = LANES;
    queue.lanes = most as usize;
    assert!(queue.is_full());
    let mut now = at(0);
    let mut rounds = |queue: &mut Queue, lasted: Duration, turn: Duration, count: usize| {
        for _ in 0..count {
            now += Duration::from_millis(10);
            queue.took(lasted, turn, now);
            queue.lanes = queue.pace.limit() as usize;
        }
    };
    let at_once = Duration::ZERO;
    rounds(&mut queue, DEADLINE / 2, at_once, 1000);
    assert_eq!(queue.pace.limit(), least);
    rounds(&mut queue, DEADLINE / 8, at_once, 2000);
    assert_eq!(queue.pace.limit(), most);
    rounds(&mut queue, DEADLINE / 2, DEADLINE / 8, 1000);
    assert_eq!(queue.pace.limit(), most, "it is this process that is slow");
}
