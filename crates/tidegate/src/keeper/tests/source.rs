//! What all keys share: the budget, a source that is down, and its return.

use super::*;

#[tokio::test(start_paused = true)]
async fn all_keys_together_ask_no_more_than_the_budget() {
    let attempts = attempts::Settings {
        attempts: NonZeroU32::new(10).unwrap(),
        within: seconds(10),
        cooldown: Duration::ZERO,
    };
    let (keeper, fake) = keeper_with(Does::Answers, Settings { attempts, ..settings() });
    for key in 0..100 {
        let answer = keeper.get(&call(), &key).await;
        assert_eq!(matches!(answer, Answer::Fresh(_)), key < 10, "{key}: {answer:?}");
        if key >= 10 {
            let Refusal::Throttled { retry_after } = refused(answer) else { panic!("throttled") };
            assert!(retry_after > seconds(9) && retry_after <= seconds(11));
        }
    }
    assert_eq!((fake.calls(), keeper.stats().throttled), (10, 90));
}

#[tokio::test(start_paused = true)]
async fn while_the_source_is_down_one_probe_goes_for_all_keys() {
    let (keeper, fake) = keeper(Does::IsDown);
    for key in 0..3 {
        refused(keeper.get(&call(), &key).await);
    }
    assert!(matches!(keeper.stats().reach, Reach::Down { .. }));
    for key in 0..1000 {
        let refusal = refused(keeper.get(&call(), &key).await);
        assert!(matches!(refusal, Refusal::Failing { why: Why::Failed("down"), .. }));
    }
    assert_eq!(fake.calls(), 3);
    for _ in 0..600 {
        sleep(seconds(1)).await;
        for key in 0..20 {
            drop(keeper.try_get(&call(), &key));
        }
        settle().await;
    }
    let calls = fake.calls() - 3;
    assert!((15..=120).contains(&calls), "{calls} probes in 600 s, with pauses of 1 s to 31 s");
}

/// Probes in ten minutes of a source that is down, by so many keys.
async fn probes_by(keys: u32) -> usize {
    let probes = Backoff { floor: seconds(1), base: seconds(1), cap: seconds(2) };
    let (keeper, fake) = keeper_with(Does::IsDown, Settings { probes, ..settings() });
    for second in 0..660 {
        for key in 0..keys {
            drop(keeper.try_get(&call(), &key));
        }
        settle().await;
        if second == 59 {
            fake.0.calls.store(0, SeqCst);
        }
        sleep(seconds(1)).await;
    }
    fake.calls()
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_is_probed_by_many_keys_in_turn_and_no_oftener_by_one_than_its_own_pause() {
    let (many, one) = (probes_by(100).await, probes_by(1).await);
    assert!((200..=600).contains(&many), "{many}: pauses of 1 s to 3 s, whoever probes");
    assert!((19..=100).contains(&one), "{one}: pauses of 1 s to 31 s");
}

#[tokio::test(start_paused = true)]
async fn after_a_recovery_all_keys_return_within_the_while_and_not_at_once() {
    let settings = Settings { recovery: seconds(5), ..settings() };
    let (keeper, fake) = keeper_with(Does::IsDown, settings);
    for _ in 0..300 {
        for key in 0..20 {
            drop(keeper.try_get(&call(), &key));
        }
        sleep(seconds(1)).await;
    }
    fake.now(Does::Answers);
    while !matches!(keeper.stats().reach, Reach::Up) {
        sleep(Duration::from_millis(100)).await;
        drop(keeper.try_get(&call(), &0));
        settle().await;
    }
    let mut most = 0;
    for _ in 0..50 {
        let before = fake.calls();
        for key in 0..20 {
            drop(keeper.try_get(&call(), &key));
        }
        settle().await;
        most = most.max(fake.calls() - before);
        advance(Duration::from_millis(100)).await;
    }
    assert!(most <= 10, "{most} at once");
    for key in 0..20 {
        fresh(keeper.get(&call(), &key).await);
    }
}
